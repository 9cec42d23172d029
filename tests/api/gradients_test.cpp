// Gradients against central finite differences of the oracle's loss in float64: dq, dk and the gradient of the
// temperature, at every granularity, for the oracle's own chain rule (to 1e-6) and for the library (by the policy, with
// the differences as the truth).
#include <cmath>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

// Central differences of the total loss; `value` is the number that is moved.
double difference(const oracle::Inputs& inputs, double& value) {
  const double step = 1e-5 * std::max(1.0, std::abs(value)), at = value;
  value = at + step;
  const double above = oracle::total_loss(inputs);
  value = at - step;
  const double below = oracle::total_loss(inputs);
  value = at;
  return (above - below) / (2 * step);
}

std::vector<double> differences(oracle::Inputs& inputs, std::vector<double>& values) {
  std::vector<double> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = difference(inputs, values[i]);
  return out;
}

double largest(const std::vector<double>& values) {
  double out = 0;
  for (const double value : values) out = std::max(out, std::abs(value));
  return out;
}

double largest_gap(const std::vector<double>& a, const std::vector<double>& b) {
  double out = 0;
  for (size_t i = 0; i < a.size(); ++i) out = std::max(out, std::abs(a[i] - b[i]));
  return out;
}

void check_gradients(Case& c) {
  INFO(describe(c));
  const Outputs actual = run_loss(c);
  Truth truth(oracle_inputs(c));
  oracle::Inputs& inputs = truth.inputs;
  const std::vector<double> dq = differences(inputs, inputs.x_q), dk = differences(inputs, inputs.x_k);
  const double dtemperature = difference(inputs, inputs.temperature);
  REQUIRE(largest(dq) > 1e-3);
  REQUIRE(largest(dk) > 1e-3);
  CHECK(largest_gap(dq, truth.exact.dq) < 1e-6 * largest(dq));
  CHECK(largest_gap(dk, truth.exact.dk) < 1e-6 * largest(dk));
  CHECK(std::abs(dtemperature - truth.exact.dtemperature) < 1e-6 * std::max(1.0, std::abs(dtemperature)));
  truth.exact.dq = dq;
  truth.exact.dk = dk;
  truth.exact.dtemperature = dtemperature;
  Want want;
  want.dtemperature_rows = false;
  FNCE_CHECK_VERDICT(compare_loss(truth, actual, want));
}

Case small_case(int32_t pos, int32_t neg, uint64_t seed) {
  Case c = make_case(FNCE_PRESET_MOCO, 3, 7, 5);
  c.problem.lambda_pos = pos;
  c.problem.lambda_neg = neg;
  c.problem.columns = neg == FNCE_LAMBDA_NONE ? FNCE_COLUMNS_QUEUE : FNCE_COLUMNS_MIXED;
  c.numbers.temperature = 0.5f;
  c.numbers.seed = seed;
  return c;
}

}  // namespace

TEST_CASE("gradients: finite differences, every granularity of positives and negatives") {
  for (int32_t pos = FNCE_LAMBDA_NONE; pos <= FNCE_LAMBDA_ELEMENT; ++pos) {
    for (int32_t neg = FNCE_LAMBDA_NONE; neg <= FNCE_LAMBDA_ELEMENT; ++neg) {
      Case c = small_case(pos, neg, 10 + static_cast<uint64_t>(5 * pos + neg));
      Random random(c.numbers.seed);
      fill_inputs(c, random);
      check_gradients(c);
    }
  }
}

TEST_CASE("gradients: finite differences, columns, anchors, renormalisation, normalisation, reductions, weights") {
  for (uint64_t bits = 0; bits < 64; ++bits) {
    const auto bit = [bits](int position) { return static_cast<int32_t>(bits >> position & 1); };
    Case c = small_case(FNCE_LAMBDA_ROW, FNCE_LAMBDA_ELEMENT, 100 + bits);
    c.problem.columns = bit(0) ? FNCE_COLUMNS_UNION : FNCE_COLUMNS_MIXED;
    c.problem.anchor = bit(1);
    c.problem.renormalize_pos = bit(2);
    c.problem.renormalize_neg = bit(3);
    c.problem.normalize = bit(4);
    c.problem.reduction = bit(5) ? FNCE_REDUCTION_NONE : FNCE_REDUCTION_MEAN;
    Random random(c.numbers.seed);
    fill_inputs(c, random);
    if (bit(5)) c.arrays.weight = {0.5f, 2.0f, 1.0f};
    check_gradients(c);
  }
}

TEST_CASE("gradients: what is not asked for does not change what is") {
  Case c = small_case(FNCE_LAMBDA_CALL, FNCE_LAMBDA_CALL, 5);
  c.problem.n = 33;
  c.problem.k = 100;
  c.problem.d = 20;
  Random random(5);
  fill_inputs(c, random);
  const Outputs all = run_loss(c);
  for (int which = 0; which < 5; ++which) {
    Case one = c;
    one.want = {which == 0, which == 1, which == 2, which == 3, which == 4};
    const Outputs part = run_loss(one);
    INFO("output " << which);
    // Without any gradient the second GEMM is skipped; the loss must keep its bits all the same.
    if (which == 0) CHECK(same_bits(part.loss, all.loss));
    if (which == 1) CHECK(same_bits(part.dq, all.dq));
    if (which == 2) CHECK(same_bits(part.dk, all.dk));
    if (which == 3) CHECK(same_bits(part.dtemperature_rows, all.dtemperature_rows));
    if (which == 4) CHECK(same_bits(part.dtemperature, all.dtemperature));
  }
}
