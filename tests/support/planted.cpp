// Wrong results made of right ones.
#include "support/planted.h"

#include <cmath>

#include "support/random_case.h"

namespace support {
namespace {

using oracle::Products;

int32_t queue_type_of(Products products) {
  if (products == Products::kBfloat16) return FNCE_BFLOAT16;
  return products == Products::kFloat16 ? FNCE_FLOAT16 : FNCE_FLOAT32;
}

// dq of row i with another weighted sum: the gradient is linear in it. `change`: [N,D] in the unit of probabilities
// times rows.
Outputs with_changed_sum(const Truth& t, const std::vector<double>& change) {
  const oracle::Inputs& in = t.inputs;
  Outputs out = outputs_of(t.exact);
  // Without mixing of the positives and anchor q: dq gains P(change) / tau / |x_q|, P the projection of the
  // normalisation.
  for (int64_t i = 0; i < in.n; ++i) {
    double inner = 0;
    for (int64_t c = 0; c < in.d; ++c) inner += change[i * in.d + c] * t.exact.q[i * in.d + c];
    for (int64_t c = 0; c < in.d; ++c) {
      const double g = (change[i * in.d + c] - inner * t.exact.q[i * in.d + c]) / t.exact.q_norm[i];
      out.dq[i * in.d + c] = static_cast<float>(t.exact.dq[i * in.d + c] + g / in.temperature);
    }
  }
  return out;
}

}  // namespace

oracle::Inputs ordinary_inputs(int32_t granularity, Products products, int64_t k, bool mixes_rows) {
  Case c = make_case(FNCE_PRESET_MOCO, 20, k, 64);
  c.problem.queue_type = queue_type_of(products);
  c.problem.lambda_pos = c.problem.lambda_neg = granularity;
  if (granularity != FNCE_LAMBDA_NONE) {
    c.problem.lambda_pos_source = c.problem.lambda_neg_source = c.problem.permutation_source = FNCE_GIVEN;
    c.problem.columns = FNCE_COLUMNS_MIXED;
  }
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.numbers.temperature = 0.1f;
  Random random(5);
  fill_inputs(c, random);
  for (float& lambda : c.arrays.lambda_pos) lambda = 1.0f + std::abs(lambda) / 2;
  for (float& lambda : c.arrays.lambda_neg) lambda = std::abs(lambda) / 1.2f;
  oracle::Inputs in = oracle_inputs(c);
  in.products = products;
  in.mixed_as_row.assign(static_cast<size_t>(k), mixes_rows);
  return in;
}

template <class T>
Outputs outputs_of(const oracle::Result<T>& from, oracle::Element gradient) {
  Outputs out;
  out.loss.assign(from.loss.begin(), from.loss.end());
  out.dq.assign(from.dq.begin(), from.dq.end());
  out.dk.assign(from.dk.begin(), from.dk.end());
  out.dtemperature_rows.assign(from.dtemperature_rows.begin(), from.dtemperature_rows.end());
  out.dtemperature = {static_cast<float>(from.dtemperature)};
  for (auto* rows : {&out.dq, &out.dk}) *rows = oracle::rounded(gradient, *rows);
  return out;
}

bool accepts(const Truth& truth, const Outputs& outputs) { return compare_loss(truth, outputs, Want{}).ok; }

double cut(double value, int digits, bool nearest) {
  if (value == 0) return value;
  const double unit = std::ldexp(1.0, std::ilogb(value) - (digits - 1));
  return (nearest ? std::nearbyint(value / unit) : std::trunc(value / unit)) * unit;
}

std::vector<float> cut(std::vector<float> values, int digits, bool nearest) {
  for (float& x : values) x = static_cast<float>(cut(double(x), digits, nearest));
  return values;
}

Outputs with_weights(const Truth& t, double shift, const WeightRounding& rounding, int64_t dropped) {
  const oracle::Inputs& in = t.inputs;
  std::vector<double> change(static_cast<size_t>(in.n * in.d));
  for (int64_t i = 0; i < in.n; ++i) {
    const double scale = t.exact.pushed[i] / t.exact.partial_l[i] * std::exp(shift);
    for (int64_t j = 0; j < in.k; ++j) {
      const double logit = t.exact.mixed.score[i * in.k + j] / in.temperature - t.exact.partial_m[i];
      const double weight = double(static_cast<float>(std::exp(logit - shift)));
      const double error = (j == dropped ? 0.0 : rounding(weight)) - std::exp(logit - shift);
      for (int64_t c = 0; c < in.d; ++c) change[i * in.d + c] += scale * error * t.exact.negatives[j * in.d + c];
    }
  }
  return with_changed_sum(t, change);
}

Outputs without_column(const Truth& t, int64_t dropped) {
  Outputs out = outputs_of(t.exact);
  for (int64_t i = 0; i < t.inputs.n; ++i)
    out.loss[i] += static_cast<float>(std::log1p(-t.exact.probability[i * t.inputs.k + dropped]));
  return out;
}

template Outputs outputs_of(const oracle::Result<double>&, oracle::Element);
template Outputs outputs_of(const oracle::Result<float>&, oracle::Element);

}  // namespace support
