// The tolerance policy for element types: what it accepts and what it must reject, by planting errors into the
// oracle's own results. Nothing of the library's arithmetic takes part.
#include <algorithm>
#include <cmath>
#include <limits>

#include "oracle/engine.h"
#include "oracle/forward.h"
#include "support/check.h"
#include "support/compare.h"
#include "support/order.h"
#include "support/random_case.h"

namespace {

using namespace support;
using oracle::Element;
using oracle::Products;

// Unit features, a queue of noise; lambdas are given, so that only the oracle computes.
oracle::Inputs ordinary(int32_t granularity, Products products, int64_t k = 272, bool mixes_rows = false) {
  Case c = make_case(FNCE_PRESET_MOCO, 20, k, 64);
  c.problem.queue_type = products == Products::kFloat32 ? FNCE_FLOAT32 : FNCE_BFLOAT16;
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
Outputs outputs_of(const oracle::Result<T>& from, Element gradient = Element::kFloat32) {
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

// Every entry to `digits` significant binary digits, towards zero or to the nearest.
std::vector<float> cut(std::vector<float> values, int digits, bool nearest) {
  for (float& x : values) {
    if (x == 0) continue;
    const double unit = std::ldexp(1.0, std::ilogb(x) - (digits - 1));
    x = static_cast<float>((nearest ? std::nearbyint(x / unit) : std::trunc(x / unit)) * unit);
  }
  return values;
}

// dq of row i with another weighted sum: the gradient is linear in it. `change`: [N,D] in the unit of engine_sum.
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

// engine_sum with weights relative to another maximum, kept to `digits` digits and without column `dropped`.
std::vector<double> changed_sum(const Truth& t, double shift, int digits, int64_t dropped = -1) {
  const oracle::Inputs& in = t.inputs;
  std::vector<double> change(t.exact.engine_sum.size());
  for (int64_t i = 0; i < in.n; ++i) {
    std::vector<float> weights(in.k);
    for (int64_t j = 0; j < in.k; ++j)
      weights[j] = static_cast<float>(
          std::exp(t.exact.mixed.score[i * in.k + j] / in.temperature - t.exact.partial_m[i] - shift));
    weights = cut(weights, digits, true);
    if (dropped >= 0) weights[dropped] = 0;
    const double scale = t.exact.pushed[i] / t.exact.partial_l[i] * std::exp(shift);
    for (int64_t c = 0; c < in.d; ++c) {
      double sum = 0;
      for (int64_t j = 0; j < in.k; ++j) sum += double(weights[j]) * t.exact.engine_rows[j * in.d + c];
      change[i * in.d + c] = sum * scale - t.exact.engine_sum[i * in.d + c];
    }
  }
  return change;
}

}  // namespace

TEST_CASE(
    "tolerance: gradients rounded once to their type are accepted; cut off, or rounded to a digit less, rejected") {
  for (const Element type : {Element::kFloat16, Element::kBfloat16}) {
    oracle::Inputs in = ordinary(FNCE_LAMBDA_CALL, Products::kFloat32);
    in.gradient_type = type;
    const Truth truth(in);
    REQUIRE(gradient_has_signal(truth));
    CHECK(accepts(truth, outputs_of(truth.exact, type)));
    CHECK(accepts(truth, outputs_of(truth.naive, type)));
    const int digits = type == Element::kFloat16 ? 11 : 8;
    for (const bool nearest : {false, true}) {
      Outputs bad = outputs_of(truth.exact);
      bad.dq = cut(bad.dq, nearest ? digits - 1 : digits, nearest);
      CHECK_FALSE(accepts(truth, bad));
    }
    // The float32 policy is not loosened for results that are not rounded.
    in.gradient_type = Element::kFloat32;
    CHECK_FALSE(accepts(Truth(in), outputs_of(truth.exact, type)));
  }
}

TEST_CASE("tolerance: gradients that overflow float16 must be infinite, those far below must not") {
  oracle::Inputs in = ordinary(FNCE_LAMBDA_NONE, Products::kFloat32);
  in.gradient_type = Element::kFloat16;
  in.weight.assign(20, 1.0);
  in.weight[3] = 1e9;
  const Truth truth(in);
  const Outputs good = outputs_of(truth.exact, Element::kFloat16);
  REQUIRE(accepts(truth, good));
  REQUIRE(std::isinf(good.dq[3 * 64]));
  Outputs bad = good;
  bad.dq[3 * 64] = 65504.0f;
  CHECK_FALSE(accepts(truth, bad));
  bad = good;
  bad.dq[5] = std::numeric_limits<float>::infinity();
  CHECK_FALSE(accepts(truth, bad));
}

TEST_CASE("tolerance: the bfloat16 engine's twin is accepted, with and without mixing") {
  for (const int32_t granularity : {FNCE_LAMBDA_NONE, FNCE_LAMBDA_CALL, FNCE_LAMBDA_ELEMENT})
    for (const bool mixes_rows : {false, true}) {
      if (granularity == FNCE_LAMBDA_ELEMENT && !mixes_rows) continue;
      const Truth truth(ordinary(granularity, Products::kBfloat16, 272, mixes_rows));
      CHECK(gradient_has_signal(truth));
      CHECK(accepts(truth, outputs_of(truth.exact)));
      FNCE_CHECK_VERDICT(compare_loss(truth, outputs_of(truth.naive), Want{}));
    }
}

TEST_CASE("tolerance: weights rounded to bfloat16 at any maximum are accepted, to three digits less rejected") {
  for (const int64_t k : {48, 272, 2000}) {
    oracle::Inputs in = ordinary(FNCE_LAMBDA_NONE, Products::kBfloat16, k);
    const Truth truth(in);
    INFO("k " << k);
    for (const double shift : {0.0, 0.31, 5.7, -3.3})
      FNCE_CHECK_VERDICT(compare_loss(truth, with_changed_sum(truth, changed_sum(truth, shift, 8)), Want{}));
    CHECK_FALSE(accepts(truth, with_changed_sum(truth, changed_sum(truth, 0.31, 5))));
    CHECK_FALSE(accepts(truth, with_changed_sum(truth, changed_sum(truth, 0.31, 1))));
  }
}

TEST_CASE("tolerance: a key dropped from the sums or from the loss is rejected under bfloat16 products") {
  const Truth truth(ordinary(FNCE_LAMBDA_NONE, Products::kBfloat16));
  REQUIRE(accepts(truth, with_changed_sum(truth, changed_sum(truth, 0.31, 8))));
  for (const int64_t dropped : {int64_t{0}, int64_t{100}, int64_t{271}})
    CHECK_FALSE(accepts(truth, with_changed_sum(truth, changed_sum(truth, 0.31, 8, dropped))));
  const Outputs good = outputs_of(truth.exact);
  for (const int64_t dropped : {int64_t{0}, int64_t{100}, int64_t{271}}) {
    Outputs bad = good;
    for (size_t i = 0; i < 20; ++i)
      bad.loss[i] += static_cast<float>(std::log1p(-truth.exact.probability[i * 272 + static_cast<size_t>(dropped)]));
    CHECK_FALSE(accepts(truth, bad));
  }
}

TEST_CASE("tolerance: an anchor that is not rounded, or cut off, is rejected under bfloat16 products") {
  const oracle::Inputs in = ordinary(FNCE_LAMBDA_NONE, Products::kBfloat16);
  const Truth truth(in);
  oracle::Inputs exact = in;
  exact.products = Products::kFloat32;
  const Outputs unrounded = outputs_of(oracle::evaluate<double>(exact));
  CHECK_FALSE(accepts(truth, unrounded));
  CHECK(accepts(Truth(exact), unrounded));
}

TEST_CASE("tolerance: the order of a pass, from the document, gives the permutation that the library draws") {
  for (const int64_t k : {1, 5, 16, 37, 257, 1000}) {
    Case c = make_case(FNCE_PRESET_FT, 1, k, 4);
    c.numbers.seed = 0x123456789abcdefull + static_cast<uint64_t>(k);
    c.numbers.offset = 4 * static_cast<uint64_t>(k);
    const std::vector<int32_t> permutation = permutation_of(c);
    std::vector<int64_t> order(static_cast<size_t>(k));
    for (int64_t i = 0; i < k; ++i) order[i] = sigma_at(c.numbers.seed, c.numbers.offset, 0, k, i);
    size_t neighbours = 0;  // most partners stand one place further
    for (size_t i = 0; i + 1 < order.size(); ++i) neighbours += permutation[order[i]] == order[i + 1];
    INFO("k " << k);
    CHECK(neighbours >= order.size() / 2);
    const std::vector<bool> beyond = rows_beyond_cycles(c);
    CHECK(std::count(beyond.begin(), beyond.end(), true) == k % 16);
    for (size_t j = 0; j < order.size(); ++j)
      if (beyond[j]) CHECK(beyond[permutation[j]]);  // cycles do not leave the rest
  }
}
