// The end of a row, equations (7), (8) and (9): its result from the negatives and the positive, and the scalars that
// its gradients and statistics are made with. Both backends end their rows with these; what is summed over features is
// theirs.
#pragma once

#include "math/gradient.h"
#include "math/lse.h"

namespace fnce {

// log2(e) / temperature in float32: a score times it is an exponent of 2. The pass and the positives use the same
// rounded number, so that no mismatch enters the loss. It is NaN for a temperature that is none.
FNCE_HD float score_scale(float temperature) {
  const bool valid = temperature > 0.0f && is_finite(temperature);
  return valid ? static_cast<float>(kLog2e / static_cast<double>(temperature)) : __builtin_nanf("");
}

// A row's loss before its weight, equation (7).
struct RowResult {
  double loss, w, pos;  // pos = s+
  double score_scale;   // 1 / temperature as the pass rounds it
  bool finite;
};

// m and l are those of the negatives, pos is q^.k^, scale is score_scale of the temperature; inputs_finite says that
// every input of the row was.
FNCE_HD RowResult row_result(float m, float l, float pos, float scale, bool inputs_finite) {
  const double unit = static_cast<double>(scale) * kLn2, scaled = static_cast<double>(pos) * unit;
  const RowLoss<double> row = row_loss(log_sum_exp(m, l), scaled);
  return {row.loss, row.w, scaled, unit, inputs_finite && is_finite(m) && is_finite(l) && is_finite(row.loss)};
}

// log of the sum that the softmax of the row divides by, equation (16): over the columns and the positive.
FNCE_HD double row_log_sum_exp(const RowResult& row) {
  return row.finite ? row.pos + row.loss : static_cast<double>(__builtin_nanf(""));
}

// The same row in the decoupled form of (7), in which the positive is not in the sum. `lse` is the log-sum-exp of the
// columns, `l` is 0 without columns.
FNCE_HD RowResult decoupled(const RowResult& row, double lse, float l) {
  RowResult result = row;
  result.loss = l > 0.0f ? lse - row.pos : 0.0;
  result.w = l > 0.0f ? 1.0 : 0.0;
  return result;
}
FNCE_HD double decoupled_log_sum_exp(const RowResult& row, double lse, float l) {
  if (!row.finite) return static_cast<double>(__builtin_nanf(""));
  return l > 0.0f ? lse : -static_cast<double>(__builtin_huge_valf());
}

// A row of weight 0 does not exist for the loss, whatever it holds.
FNCE_HD float weighted_loss(const RowResult& row, float weight) {
  const float loss = row.finite ? weight * static_cast<float>(row.loss) : __builtin_nanf("");
  return weight == 0.0f ? 0.0f : loss;
}

// The row's gradients are what the formulas give, or else all of them are gradient_filler.
FNCE_HD bool has_gradient(const RowResult& row, float weight) {
  return row.finite && weight != 0.0f && is_finite(weight);
}
FNCE_HD float gradient_filler(float weight) { return weight == 0.0f ? 0.0f : __builtin_nanf(""); }

// 1 / l, 0 without columns: O times it is their mean.
FNCE_HD float inverse_sum(float l) { return l > 0 ? 1.0f / l : 0.0f; }

// What a row's gradients are multiplied by: its weight, and the reduction over n rows where that is the mean.
FNCE_HD float upstream_factor(float weight, bool is_mean, int64_t n) {
  return weight * (is_mean ? 1.0f / static_cast<float>(n) : 1.0f);
}

// Two numbers follow from a row's mean negative: its entropy, equation (9), and the gradient of the temperature, (8).
struct RowScalars {
  float entropy, dtemperature;
};

// anchor_o is a . o_mean, up the upstream_factor.
FNCE_HD RowScalars row_scalars(const RowResult& row, float anchor_o, float up, float temperature) {
  const double neg_mean = static_cast<double>(anchor_o) * row.score_scale;
  const double gradient = gradient_temperature(row.w, row.pos, neg_mean, static_cast<double>(temperature));
  return {static_cast<float>(row_entropy(row.loss, row.w, row.pos, neg_mean)),
          static_cast<float>(static_cast<double>(up) * gradient)};
}

// What comes from above to a row, over the divisor of its softmax, equation (16): the bias of the row where it is a
// column of the batch columns' gradient, a logarithm, for the sign asked for. A row that sends nothing of that sign is
// left out (-infinity); one that is not finite shows as NaN, once.
FNCE_HD float upstream_bias(float upstream, float weight, float log_sum_exp, float sign) {
  constexpr float kInfinity = __builtin_huge_valf();
  if (upstream == 0.0f || weight == 0.0f || log_sum_exp == -kInfinity) return -kInfinity;
  const double factor = static_cast<double>(upstream) * static_cast<double>(weight);
  if (!is_finite(factor) || !is_finite(log_sum_exp)) return sign > 0 ? __builtin_nanf("") : -kInfinity;
  if (factor * static_cast<double>(sign) <= 0.0) return -kInfinity;
  return static_cast<float>(log_of(abs_of(factor)) - static_cast<double>(log_sum_exp));
}

// What the sums of such a pass are multiplied by, with its maximum m and the bias of the batch column.
FNCE_HD double column_factor(float m, float bias, float sign, float temperature) {
  return static_cast<double>(sign) * exp_of(static_cast<double>(m) + static_cast<double>(bias)) /
         static_cast<double>(temperature);
}

}  // namespace fnce
