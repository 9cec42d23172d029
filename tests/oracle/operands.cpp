// The arithmetics one by one.
#include "oracle/operands.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace oracle {
namespace {

constexpr int kRowExponent = 13;     // of the largest magnitude of a scaled row
constexpr int kQueueExponent = 14;   // a float32 queue is multiplied by 2^14 before it is rounded to float16
constexpr double kMostFast = 3.9;    // of a key that would be multiplied so
constexpr int kWeightExponent = 10;  // of the twin's largest weight, in the middle of what the engine allows

}  // namespace

Rounding anchor_rounding(const Inputs& in) {
  if (in.products == Products::kBfloat16) return {Element::kBfloat16, 0};
  if (in.products == Products::kFloat16 || in.products == Products::kFloat16Fast) return {Element::kFloat16, 0, true};
  return {};
}

Rounding queue_rounding(const Inputs& in) {
  if (in.products == Products::kFloat16Fast && in.negatives_fit) return {Element::kFloat16, kQueueExponent};
  return {};
}

Rounding mixed_row_rounding(const Inputs& in) {
  if (in.products == Products::kBfloat16) return {Element::kBfloat16, 0};
  if (in.products == Products::kFloat16) return {Element::kFloat16, 0};
  return queue_rounding(in);
}

Rounding batch_rounding(const Inputs& in) { return {in.queue_type}; }

bool rounds_operands(const Inputs& in) {
  return in.products != Products::kFloat32 || (in.c > 0 && batch_rounding(in).any());
}

Rounding rank_key_rounding(const Inputs& in) {
  if (in.products == Products::kFloat16Fast) return {Element::kFloat16, kQueueExponent, false, kMostFast};
  return {};
}

Rounding weight_rounding(const Inputs& in) {
  if (in.products == Products::kBfloat16) return {Element::kBfloat16, 0};
  if (in.products == Products::kFloat16 || (in.products == Products::kFloat16Fast && in.negatives_fit))
    return {Element::kFloat16, kWeightExponent - std::ilogb(weight_extent(in))};
  return {};
}

template <class T>
int exponent_of(const Rounding& rounding, const T* row, int64_t d) {
  if (!rounding.by_row) return rounding.exponent;
  double largest = 0;
  for (int64_t c = 0; c < d; ++c) largest = std::max(largest, std::abs(double(row[c])));
  return largest > 0 && std::isfinite(largest) ? kRowExponent - std::ilogb(largest) : 0;
}

template <class T>
std::vector<T> rounded_rows(const Rounding& rounding, std::vector<T> rows, int64_t d) {
  if (!rounding.any()) return rows;
  for (int64_t first = 0; first < static_cast<int64_t>(rows.size()); first += d) {
    const int exponent = exponent_of(rounding, &rows[first], d);
    for (int64_t c = first; c < first + d; ++c)
      if (!(std::abs(rows[c]) > rounding.most)) rows[c] = T(rounded(rounding.element, double(rows[c]), exponent));
  }
  return rows;
}

template <class T>
std::vector<T> multiplied_queue(const Inputs& in) {
  return rounded_rows(queue_rounding(in), std::vector<T>(in.queue.begin(), in.queue.end()), in.d);
}

template <class T>
std::vector<T> queue_of_scores(const Inputs& in) {
  Inputs alone = in;
  alone.negatives_fit = in.queue_fits;
  return multiplied_queue<T>(alone);
}

double weight_extent(const Inputs& in) {
  double extent = 1;
  for (int64_t j = 0; in.mixes_negatives() && j < in.k; ++j) {
    if (in.mixes_as_row(j)) continue;
    const double lambda = lambda_at(in.granularity_neg, in.lambda_neg, j, 0, in.d);
    if (std::isfinite(lambda)) extent = std::max(extent, std::abs(lambda) + std::abs(1 - lambda));
  }
  return in.columns == Columns::kUnion ? extent + 1 : extent;
}

// bfloat16 has 8 digits and float32's exponents: no floor. float16 has 11, and below 2^-14 multiples of 2^-24, of which
// half a unit is 2^-25; the engine keeps the largest weight of a row above 2^6, so the floor is 2^-31 of it, for
// weights below 2^-20 of it. (Half a unit in the last place is 2^-9 to 2^-8 of a bfloat16: the policy allows twice the
// unit.) Weights split in two err as products of split factors do (oracle/rounding.h), perhaps all with one sign, and
// end at 2^-38 of the largest, which is kept above 2^13.
WeightError weight_error(const Inputs& in) {
  switch (in.products) {
    case Products::kFloat32: break;
    case Products::kBfloat16: return {std::ldexp(1.0, -9), 256, 0, 0};
    case Products::kFloat16Fast:
      if (!in.negatives_fit) break;
      [[fallthrough]];
    case Products::kFloat16: return {std::ldexp(1.0, -12), 2048, std::ldexp(1.0, -31), std::ldexp(1.0, -20)};
    case Products::kFloat16Split: return {std::ldexp(1.0, -23), 0, std::ldexp(1.0, -38), 1};
  }
  return {};
}

template int exponent_of(const Rounding&, const double*, int64_t);
template int exponent_of(const Rounding&, const float*, int64_t);
template std::vector<double> rounded_rows(const Rounding&, std::vector<double>, int64_t);
template std::vector<float> rounded_rows(const Rounding&, std::vector<float>, int64_t);
template std::vector<double> multiplied_queue(const Inputs&);
template std::vector<float> multiplied_queue(const Inputs&);
template std::vector<double> queue_of_scores(const Inputs&);
template std::vector<float> queue_of_scores(const Inputs&);

}  // namespace oracle
