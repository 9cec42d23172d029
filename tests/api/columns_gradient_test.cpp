// Gradients with columns beyond the queue: finite differences of the oracle's loss, dx_c for upstream gradients,
// weights and reductions of every kind, and the tolerances that judge them.
#include <cmath>
#include <limits>
#include <vector>

#include "support/beyond.h"
#include "support/check.h"
#include "support/compare.h"
#include "support/margin.h"
#include "support/random_case.h"

namespace {

using namespace support;

// Central differences of the total loss with the choice of columns that the case makes.
std::vector<double> differences(oracle::Inputs& inputs, std::vector<double>& values) {
  std::vector<double> out;
  for (double& value : values) {
    const double step = 1e-5 * std::max(1.0, std::abs(value)), at = value;
    value = at + step;
    const double above = oracle::total_loss(inputs);
    value = at - step;
    out.push_back((above - oracle::total_loss(inputs)) / (2 * step));
    value = at;
  }
  return out;
}

double largest(const std::vector<double>& values) {
  double out = 0;
  for (const double value : values) out = std::max(out, std::abs(value));
  return out;
}

void check_close(const char* name, const std::vector<double>& expected, const std::vector<double>& actual) {
  INFO(name);
  REQUIRE(expected.size() == actual.size());
  double gap = 0;
  for (size_t i = 0; i < expected.size(); ++i) gap = std::max(gap, std::abs(expected[i] - actual[i]));
  CHECK(gap < 1e-6 * std::max(1e-2, largest(expected)));
}

// dq, dk, dtemperature and dx_c of the oracle and of the library are the differences of the oracle's loss.
void check_differences(const Case& c) {
  INFO(describe(c) << describe_columns(c));
  const Outputs actual = run_loss(c);
  Truth truth(oracle_inputs(c));
  oracle::Inputs inputs = truth.inputs;
  inputs.counting = truth.exact.counting;
  const std::vector<double> dx_c = differences(inputs, inputs.x_c);
  inputs.upstream = {1.0};  // dq and dk are of the reduced loss
  const std::vector<double> dq = differences(inputs, inputs.x_q), dk = differences(inputs, inputs.x_k);
  std::vector<double> temperature{inputs.temperature};
  const double step = 1e-5;
  inputs.temperature = temperature[0] + step;
  const double above = oracle::total_loss(inputs);
  inputs.temperature = temperature[0] - step;
  const double dtemperature = (above - oracle::total_loss(inputs)) / (2 * step);
  check_close("dq", dq, truth.exact.dq);
  check_close("dk", dk, truth.exact.dk);
  check_close("dx_c", dx_c, truth.exact.dx_c);
  check_close("dtemperature", {dtemperature}, {truth.exact.dtemperature});
  truth.exact.dq = dq;
  truth.exact.dk = dk;
  truth.exact.dx_c = dx_c;
  truth.exact.dtemperature = dtemperature;
  Want want = c.want;
  want.dtemperature_rows = false;
  FNCE_CHECK_VERDICT(compare_loss(truth, actual, want));
}

Expectation expected_dx_c(const Truth& t) {
  return {"dx_c", t.inputs.c, t.inputs.d, &t.exact.dx_c, &t.naive.dx_c, &t.condition.dx_c, nullptr};
}

Expectation expected_sums(const Truth& t) {
  return {"log_sum_exp", t.inputs.n, 1, &t.exact.normalizer, &t.naive.normalizer, &t.condition.normalizer, nullptr};
}

std::vector<float> floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

}  // namespace

TEST_CASE("columns: finite differences, every set of options, mixing, anchor and reduction") {
  for (int bits = 0; bits < 64; ++bits) {
    const auto bit = [bits](int position) { return (bits >> position & 1) != 0; };
    const auto seed = 3000 + static_cast<uint64_t>(bits);
    Case c = beyond_case({4, 9, 6, 5}, seed, {bit(0), bit(1), false, bit(3)},
                         bit(4) ? FNCE_PRESET_FT_ELEMENTWISE : FNCE_PRESET_MOCO);
    if (bit(4) && bits % 3 == 0) c.problem.columns = FNCE_COLUMNS_UNION;
    c.problem.margin_mask = bit(2);
    c.problem.anchor = bit(5);
    c.problem.normalize = bits % 5 != 0;
    c.problem.renormalize_neg = bit(4) && bits % 7 == 0;
    c.problem.reduction = bits % 3;
    c.numbers.temperature = 0.5f;
    fill_beyond(c, seed);
    if (bits % 2 == 1) c.arrays.weight = {0.5f, 2.0f, -1.0f, 0.0f};
    check_differences(c);
  }
}

TEST_CASE("columns: upstream gradients of every kind, weights and reductions") {
  uint64_t seed = 3100;
  for (const int32_t reduction : {FNCE_REDUCTION_NONE, FNCE_REDUCTION_MEAN, FNCE_REDUCTION_SUM}) {
    for (const bool weighs : {false, true}) {
      for (const auto& upstream :
           std::vector<std::vector<float>>{{1.0f}, {-2.5f}, {0.0f}, {1e-30f}, {1e20f}, {}, {3.0f}}) {
        Case c = beyond_case({26, 30, 41, 18}, ++seed, {true, true, false, seed % 2 == 0});
        c.problem.reduction = reduction;
        Random random(seed);
        c.arrays.upstream = upstream;
        // Empty: one for each row, zeros, negative and very different ones among them.
        for (int i = 0; upstream.empty() && i < 26; ++i)
          c.arrays.upstream.push_back(i % 7 == 0 ? 0.0f
                                                 : static_cast<float>(random.normal() * std::pow(10.0, i % 9 - 4)));
        if (weighs) {
          c.arrays.weight.assign(26, 1.0f);
          for (float& w : c.arrays.weight) w = random.chance(0.2) ? 0.0f : static_cast<float>(random.uniform(-1, 2));
        }
        INFO(describe(c) << describe_columns(c) << ", first upstream " << c.arrays.upstream[0]);
        const Outputs out = run_loss(c);
        FNCE_CHECK_VERDICT(compare_all(c, Truth(oracle_inputs(c)), out));
        if (upstream == std::vector<float>{0.0f})
          for (const float x : out.dx_c) CHECK(x == 0.0f);
      }
    }
  }
}

TEST_CASE("columns: dx_c turns with the upstream gradient, and a row of weight or upstream 0 adds nothing") {
  const Case c = [] {
    Case made = beyond_case({20, 30, 25, 12}, 3200, {true, false, false, false});
    made.arrays.upstream.assign(20, 1.0f);
    return made;
  }();
  const Outputs plain = run_loss(c);
  Case negative = c;
  for (float& u : negative.arrays.upstream) u = -1.0f;
  const Outputs turned = run_loss(negative);
  for (size_t i = 0; i < plain.dx_c.size(); ++i) CHECK(turned.dx_c[i] == -plain.dx_c[i]);
  Case one = c;
  one.arrays.upstream = {1.0f};
  CHECK(same_bits(plain, run_loss(one)));
  // Row 11 holds anything.
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const bool by_weight : {false, true}) {
      Case silent = c;
      silent.arrays.weight.assign(20, 1.0f);
      silent.arrays.weight[11] = by_weight ? 0.0f : 1.0f;
      silent.arrays.upstream[11] = by_weight ? 1.0f : 0.0f;
      const Outputs expected = run_loss(silent);
      silent.arrays.x_q[11 * 12 + 3] = poison;
      CHECK(same_bits(expected.dx_c, run_loss(silent).dx_c));
      silent.arrays.weight[11] = silent.arrays.upstream[11] = 1.0f;
      const Truth truth(oracle_inputs(silent));
      const Outputs loud = run_loss(silent);
      FNCE_CHECK_VERDICT(compare_loss(truth, loud, silent.want));
      CHECK(truth.exact.counting.mixed[static_cast<size_t>(11 * 55 + 30)] == std::isnan(loud.dx_c[0]));
    }
  }
}

TEST_CASE("columns: a planted error in dx_c or the log-sum-exps is rejected") {
  for (const bool decoupled : {false, true}) {
    Case c = beyond_case({20, 30, 25, 32}, 3300, {true, true, true, decoupled});
    c.arrays.upstream = {1.0f};
    const Truth truth(oracle_inputs(c));
    FNCE_CHECK_VERDICT(compare_rows(expected_dx_c(truth), floats(truth.exact.dx_c)));
    FNCE_CHECK_VERDICT(compare_rows(expected_dx_c(truth), truth.naive.dx_c));
    FNCE_CHECK_VERDICT(compare_rows(expected_sums(truth), floats(truth.exact.normalizer)));
    FNCE_CHECK_VERDICT(compare_rows(expected_sums(truth), truth.naive.normalizer));
    CHECK(has_signal(expected_dx_c(truth)));
    for (size_t row = 0; row < 25; ++row) {
      std::vector<float> dx_c = floats(truth.exact.dx_c);
      for (size_t col = 0; col < 32; ++col) dx_c[row * 32 + col] *= 1 + 1e-3f;
      const bool any = largest({truth.exact.dx_c.begin() + static_cast<int64_t>(row) * 32,
                                truth.exact.dx_c.begin() + static_cast<int64_t>(row + 1) * 32}) > 0;
      CHECK(compare_rows(expected_dx_c(truth), dx_c).ok == !any);
    }
    for (size_t row = 0; row < 20; ++row) {
      if (!std::isfinite(truth.exact.normalizer[row])) continue;  // decoupled, without columns
      std::vector<float> sums = floats(truth.exact.normalizer);
      sums[row] += 1e-4f;
      CHECK_FALSE(compare_rows(expected_sums(truth), sums).ok);
    }
  }
}

TEST_CASE("columns: a huge value in a column left out hides no error") {
  Case c = beyond_case({20, 30, 25, 32}, 3400, {true, true, false, false});
  c.problem.normalize = 0;
  fill_beyond(c, 3400);
  c.arrays.column_ids[4] = FNCE_NO_COLUMN;
  c.arrays.column_bias[4] = 0;
  c.arrays.batch_bias[9] = -std::numeric_limits<float>::infinity();
  Case huge = c;
  for (size_t col = 0; col < 32; ++col) huge.arrays.queue[4 * 32 + col] = huge.arrays.x_c[9 * 32 + col] = 1e30f;
  const Truth truth(oracle_inputs(c)), of_huge(oracle_inputs(huge));
  CHECK(truth.condition.loss == of_huge.condition.loss);
  CHECK(truth.condition.dq == of_huge.condition.dq);
  CHECK(truth.condition.dk == of_huge.condition.dk);
  CHECK(truth.condition.dtemperature_rows == of_huge.condition.dtemperature_rows);
  CHECK(truth.condition.normalizer == of_huge.condition.normalizer);
  CHECK(truth.condition.dx_c == of_huge.condition.dx_c);
  for (const auto& [a, b] : {std::pair{&truth.condition.mixed, &of_huge.condition.mixed},
                             {&truth.condition.unmixed, &of_huge.condition.unmixed},
                             {&truth.condition.plain, &of_huge.condition.plain}}) {
    CHECK(a->largest == b->largest);
    CHECK(a->mean == b->mean);
    CHECK(a->log_mean_exp == b->log_mean_exp);
  }
  CHECK(truth.exact.loss == of_huge.exact.loss);
  // A column that is counted by mistake is rejected, and so is one that is forgotten.
  Case counted = c;
  counted.arrays.column_ids[4] = 123456789;
  CHECK_FALSE(compare_loss(truth, run_loss(counted), c.want).ok);
}
