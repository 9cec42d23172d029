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

// Whether float32 can hold the truth; what it cannot hold must not come back finite.
bool representable(double truth) { return std::isfinite(truth) && std::isfinite(static_cast<float>(truth)); }

template <class T>
RowError row_error(const Expectation& e, const std::vector<T>& values, int64_t row) {
  RowError error;
  double squares = 0;
  for (int64_t c = row * e.width; c < (row + 1) * e.width; ++c) {
    if (!representable((*e.truth)[c])) continue;
    const double difference = std::abs(double(values[c]) - (*e.truth)[c]);
    error.largest = std::max(error.largest, difference);
    squares += difference * difference;
  }
  error.norm = std::sqrt(squares);
  return error;
}

struct RowUnit {
  double norm = 0, largest = 0;  // 2^-23 * condition
};

RowUnit row_unit(const Expectation& e, int64_t row) {
  RowUnit unit;
  for (int64_t c = row * e.width; c < (row + 1) * e.width; ++c) {
    const double condition = kFloatEpsilon * (*e.condition)[c];
    unit.largest = std::max(unit.largest, condition);
    unit.norm += condition * condition;
  }
  unit.norm = std::sqrt(unit.norm);
  return unit;
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

void fail(Verdict& verdict, const Expectation& e, int64_t row, const std::string& what) {
  if (!verdict.ok) return;
  verdict.ok = false;
  std::ostringstream text;
  text << e.name << ", row " << row << ": " << what;
  verdict.why = text.str();
}

void check_finiteness(Verdict& verdict, const Expectation& e, const std::vector<float>& actual, int64_t row) {
  for (int64_t c = row * e.width; c < (row + 1) * e.width; ++c) {
    if (representable((*e.truth)[c]) == static_cast<bool>(std::isfinite(actual[c]))) continue;
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
    check_finiteness(verdict, e, actual, i);
    const RowError error = row_error(e, actual, i);
    if (!std::isfinite(error.norm)) continue;  // check_finiteness has reported it
    const RowUnit unit = row_unit(e, i);
    check_bound(verdict, e, i, "norm", error.norm, (2 * naive.norm + kRounding) * unit.norm);
    if (e.width > 1)
      check_bound(verdict, e, i, "maximum", error.largest, (2 * naive.largest + kRounding) * unit.largest);
  }
  return verdict;
}

double score_margin(const oracle::ScoreCondition& condition, int64_t row) {
  return (2 * kNaiveCap + kRounding) * kFloatEpsilon * (condition.largest[row] + condition.pos[row]);
}

bool has_signal(const Expectation& e) {
  const RowUnit naive = naive_ratio(e);
  for (int64_t i = 0; i < e.rows; ++i) {
    double squares = 0;
    for (int64_t c = i * e.width; c < (i + 1) * e.width; ++c) squares += (*e.truth)[c] * (*e.truth)[c];
    const double bound = (2 * naive.norm + kRounding) * row_unit(e, i).norm;
    if (std::isfinite(squares) && std::sqrt(squares) > 100 * bound) return true;
  }
  return false;
}

}  // namespace support
