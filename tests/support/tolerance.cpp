// The tolerance policy's arithmetic.
#include "support/tolerance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace support {
namespace {

struct RowError {
  double norm = 0, largest = 0;  // of the difference to the truth
};

// True if the type can hold the truth; what it cannot hold must not come back finite.
bool representable(const Expectation& e, double truth) { return std::isfinite(oracle::rounded(e.type, truth)); }

template <class T>
RowError row_error(const Expectation& e, const std::vector<T>& values, int64_t row) {
  RowError error;
  double squares = 0;
  for (int64_t c = row * e.width; c < (row + 1) * e.width; ++c) {
    if (!representable(e, (*e.truth)[c])) continue;
    // Overflow in 16 bits: check_finiteness has judged it, the rest of the row still counts.
    if (e.type != oracle::Element::kFloat32 && std::isinf(values[c])) continue;
    const double difference = std::abs(double(values[c]) - (*e.truth)[c]);
    error.largest = std::max(error.largest, difference);
    squares += difference * difference;
  }
  error.norm = std::sqrt(squares);
  return error;
}

struct RowUnit {
  double norm = 0, largest = 0;  // 2^-23 * condition + engine
};

RowUnit row_unit(const Expectation& e, int64_t row) {
  RowUnit unit;
  for (int64_t c = row * e.width; c < (row + 1) * e.width; ++c) {
    const double size = kFloatEpsilon * (*e.condition)[c] + (e.rounding != nullptr ? (*e.rounding)[c] : 0.0);
    unit.largest = std::max(unit.largest, size);
    unit.norm += size * size;
  }
  unit.norm = std::sqrt(unit.norm);
  return unit;
}

// Half units in the last place of a row as written, where its values may be `error` larger than the truth.
RowUnit output_rounding(const Expectation& e, int64_t row, double error) {
  RowUnit half;
  if (e.type == oracle::Element::kFloat32) return half;
  for (int64_t c = row * e.width; c < (row + 1) * e.width; ++c) {
    if (!representable(e, (*e.truth)[c])) continue;
    const double size = oracle::spacing(e.type, std::abs((*e.truth)[c]) + error) / 2;
    half.largest = std::max(half.largest, size);
    half.norm += size * size;
  }
  half.norm = std::sqrt(half.norm);
  return half;
}

double ratio(double error, double unit) {
  if (!std::isfinite(unit)) return 0;
  if (error == 0) return 0;
  return unit > 0 ? error / unit : std::numeric_limits<double>::infinity();
}

// The naive twin's error in units, as norm and as maximum, the largest over the rows.
RowUnit naive_ratio(const Expectation& e) {
  RowUnit worst;
  for (int64_t i = 0; i < e.rows; ++i) {
    const RowError error = row_error(e, *e.naive, i);
    if (!std::isfinite(error.norm)) continue;
    const RowUnit unit = row_unit(e, i);
    worst.norm = std::max(worst.norm, ratio(error.norm, unit.norm));
    worst.largest = std::max(worst.largest, ratio(error.largest, unit.largest));
  }
  worst.norm = std::min(worst.norm, kNaiveCap);
  worst.largest = std::min(worst.largest, kNaiveCap);
  return worst;
}

RowUnit row_bound(const Expectation& e, const RowUnit& naive, int64_t row) {
  const RowUnit unit = row_unit(e, row);
  return {(2 * naive.norm + kRounding) * unit.norm, (2 * naive.largest + kRounding) * unit.largest};
}

void fail(Verdict& verdict, const Expectation& e, int64_t row, const std::string& what) {
  if (!verdict.ok) return;
  verdict.ok = false;
  std::ostringstream text;
  text << e.name << ", row " << row << ": " << what;
  verdict.why = text.str();
}

// `error`: the bound of an element before it is written. In float32 the overflow is as far as anything can be; 16-bit
// types reach theirs in ordinary use.
void check_finiteness(Verdict& verdict, const Expectation& e, const std::vector<float>& actual, int64_t row,
                      double error) {
  for (int64_t c = row * e.width; c < (row + 1) * e.width; ++c) {
    const double truth = (*e.truth)[c];
    if (representable(e, truth) == static_cast<bool>(std::isfinite(actual[c]))) continue;
    const double shift = std::copysign(error, truth);
    if (e.type != oracle::Element::kFloat32 && representable(e, truth - shift) && !representable(e, truth + shift))
      continue;
    std::ostringstream text;
    text << "element " << c - row * e.width << " is " << actual[c] << ", truth " << (*e.truth)[c];
    fail(verdict, e, row, text.str());
    return;
  }
}

void check_bound(Verdict& verdict, const Expectation& e, int64_t row, const char* measure, double error, double bound) {
  const double relative = ratio(error, bound);
  if (relative > verdict.worst) verdict.worst = relative;
  if (relative <= 1) return;
  std::ostringstream text;
  text.precision(9);
  text << measure << " of the error is " << error << ", " << relative << " times its bound; first truth "
       << (*e.truth)[row * e.width];
  fail(verdict, e, row, text.str());
}

}  // namespace

void Verdict::merge(const Verdict& other) {
  worst = std::max(worst, other.worst);
  if (other.ok) return;
  why += (why.empty() ? "" : "; ") + other.why;
  ok = false;
}

Verdict compare_rows(const Expectation& e, const std::vector<float>& actual) {
  Verdict verdict;
  if (static_cast<int64_t>(actual.size()) != e.rows * e.width) {
    fail(verdict, e, -1, "wrong size");
    return verdict;
  }
  const RowUnit naive = naive_ratio(e);
  for (int64_t i = 0; i < e.rows; ++i) {
    const RowUnit bound = row_bound(e, naive, i);
    check_finiteness(verdict, e, actual, i, bound.largest);
    const RowError error = row_error(e, actual, i);
    if (!std::isfinite(error.norm)) continue;  // check_finiteness has reported it
    const RowUnit output = output_rounding(e, i, bound.largest);
    check_bound(verdict, e, i, "norm", error.norm, bound.norm + output.norm);
    if (e.width > 1) check_bound(verdict, e, i, "maximum", error.largest, bound.largest + output.largest);
  }
  return verdict;
}

Verdict compare_pair(const Expectation& e, const std::vector<float>& actual, const std::vector<float>& other) {
  Verdict verdict;
  if (static_cast<int64_t>(actual.size()) != e.rows * e.width || actual.size() != other.size()) {
    fail(verdict, e, -1, "wrong size");
    return verdict;
  }
  const RowUnit naive = naive_ratio(e);
  for (int64_t i = 0; i < e.rows; ++i) {
    RowError error;
    double squares = 0;
    for (int64_t c = i * e.width; c < (i + 1) * e.width; ++c) {
      const bool finite = std::isfinite(actual[c]);
      if (finite != static_cast<bool>(std::isfinite(other[c])))
        fail(verdict, e, i, std::to_string(actual[c]) + " beside " + std::to_string(other[c]));
      const double difference = finite ? std::abs(double(actual[c]) - double(other[c])) : 0;
      error.largest = std::max(error.largest, difference);
      squares += difference * difference;
    }
    error.norm = std::sqrt(squares);
    const RowUnit bound = row_bound(e, naive, i);
    const RowUnit output = output_rounding(e, i, bound.largest);
    check_bound(verdict, e, i, "norm", error.norm, 2 * (bound.norm + output.norm));
    check_bound(verdict, e, i, "maximum", error.largest, 2 * (bound.largest + output.largest));
  }
  return verdict;
}

double score_margin(const oracle::ScoreCondition& condition, int64_t row) {
  return (2 * kNaiveCap + kRounding) * kFloatEpsilon * (condition.largest[row] + condition.pos[row]) +
         condition.score_rounding[row] + condition.rank_rounding[row];
}

bool has_signal(const Expectation& e) {
  const RowUnit naive = naive_ratio(e);
  for (int64_t i = 0; i < e.rows; ++i) {
    double squares = 0;
    for (int64_t c = i * e.width; c < (i + 1) * e.width; ++c) squares += (*e.truth)[c] * (*e.truth)[c];
    const RowUnit bound = row_bound(e, naive, i);
    const double all = bound.norm + output_rounding(e, i, bound.largest).norm;
    if (std::isfinite(squares) && std::sqrt(squares) > 100 * all) return true;
  }
  return false;
}

}  // namespace support
