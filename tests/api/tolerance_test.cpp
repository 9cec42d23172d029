// The tolerance policy itself: it accepts the truth rounded to float32 and the naive float32 twin, and rejects a
// relative error of 1e-4 in one row of any result at ordinary settings (4e-4 where the temperature amplifies every
// rounding by 1/0.07). Nothing of the library's arithmetic takes part.
#include <cmath>
#include <limits>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

template <class T>
Outputs rounded(const oracle::Result<T>& from) {
  Outputs out;
  out.loss.assign(from.loss.begin(), from.loss.end());
  out.dq.assign(from.dq.begin(), from.dq.end());
  out.dk.assign(from.dk.begin(), from.dk.end());
  out.dtemperature_rows.assign(from.dtemperature_rows.begin(), from.dtemperature_rows.end());
  out.dtemperature = {static_cast<float>(from.dtemperature)};
  return out;
}

// Ordinary settings: unit features, a queue of noise, temperatures of use, mixing as in the presets. Lambdas are given,
// so that only the oracle computes.
Case ordinary(int32_t granularity, float temperature, int32_t reduction) {
  Case c = make_case(FNCE_PRESET_MOCO, 33, 257, 64);
  c.problem.lambda_pos = c.problem.lambda_neg = granularity;
  if (granularity != FNCE_LAMBDA_NONE) {
    c.problem.lambda_pos_source = c.problem.lambda_neg_source = c.problem.permutation_source = FNCE_GIVEN;
    c.problem.columns = FNCE_COLUMNS_MIXED;
  }
  c.problem.reduction = reduction;
  c.numbers.temperature = temperature;
  Random random(5);
  fill_inputs(c, random);
  for (float& lambda : c.arrays.lambda_pos) lambda = 1.0f + std::abs(lambda) / 2;
  for (float& lambda : c.arrays.lambda_neg) lambda = std::abs(lambda) / 1.2f;
  return c;
}

// The policy of float32 products, whatever the device would choose.
oracle::Inputs float32_inputs(const Case& c) {
  oracle::Inputs in = oracle_inputs(c);
  in.products = oracle::Products::kFloat32;
  return in;
}

bool accepts(const Truth& truth, const Outputs& outputs) { return compare_loss(truth, outputs, Want{}).ok; }

}  // namespace

TEST_CASE("tolerance: a planted relative error of 1e-4 (4e-4 at temperature 0.07) is rejected") {
  const int32_t granularity = GENERATE(values<int32_t>({FNCE_LAMBDA_NONE, FNCE_LAMBDA_CALL, FNCE_LAMBDA_ELEMENT}));
  const auto [temperature, planted] = GENERATE(table<float, float>({{0.2f, 1e-4f}, {0.07f, 4e-4f}}));
  const Case c = ordinary(granularity, temperature, FNCE_REDUCTION_NONE);
  INFO(describe(c));
  const Truth truth(float32_inputs(c));
  const Outputs good = rounded(truth.exact);
  REQUIRE(accepts(truth, good));
  FNCE_CHECK_VERDICT(compare_loss(truth, rounded(truth.naive), Want{}));
  REQUIRE(gradient_has_signal(truth));
  const size_t n = 33, d = 64;
  for (size_t row = 0; row < n; ++row) {
    INFO("row " << row);
    Outputs bad = good;
    bad.loss[row] *= 1 + planted;
    CHECK_FALSE(accepts(truth, bad));
    for (auto* gradient : {&bad.dq, &bad.dk}) {
      bad = good;
      for (size_t col = 0; col < d; ++col) (*gradient)[row * d + col] *= 1 + planted;
      CHECK_FALSE(accepts(truth, bad));
    }
  }
}

TEST_CASE("tolerance: one wrong element of a gradient is rejected") {
  const Case c = ordinary(FNCE_LAMBDA_CALL, 0.2f, FNCE_REDUCTION_MEAN);
  const Truth truth(float32_inputs(c));
  Outputs bad = rounded(truth.exact);
  REQUIRE(accepts(truth, bad));
  float largest = 0;
  for (const float value : bad.dq) largest = std::max(largest, std::abs(value));
  bad.dq[17] += 1e-3f * largest;
  CHECK_FALSE(accepts(truth, bad));
}

TEST_CASE("tolerance: finite where the truth is not, and the reverse, are rejected") {
  Case c = ordinary(FNCE_LAMBDA_NONE, 0.2f, FNCE_REDUCTION_NONE);
  c.arrays.x_q[64] = std::numeric_limits<float>::quiet_NaN();
  const Truth truth(float32_inputs(c));
  const Outputs good = rounded(truth.exact);
  REQUIRE(accepts(truth, good));
  Outputs bad = good;
  bad.loss[1] = 1.0f;
  CHECK_FALSE(accepts(truth, bad));
  bad = good;
  bad.dq[64 + 3] = 0.0f;
  CHECK_FALSE(accepts(truth, bad));
  bad = good;
  bad.dq[3] = std::numeric_limits<float>::infinity();
  CHECK_FALSE(accepts(truth, bad));
}

TEST_CASE("tolerance: a small loss keeps its digits, a wrong statistic is rejected") {
  Case c = make_case(FNCE_PRESET_MOCO, 1, 1, 2);
  c.arrays.x_q = {1, 0};
  c.arrays.x_k = {1, 0};
  c.arrays.queue = {-0.6f, 0.8f};
  c.numbers.temperature = 0.1f;
  const Truth truth(float32_inputs(c));
  REQUIRE(truth.exact.loss[0] < 2e-7);
  Outputs bad = rounded(truth.exact);
  REQUIRE(accepts(truth, bad));
  bad.loss[0] *= 1.001f;
  CHECK_FALSE(accepts(truth, bad));
}

TEST_CASE("tolerance: results of two backends differ by no planted error, and are finite together") {
  const Case c = ordinary(FNCE_LAMBDA_ELEMENT, 0.2f, FNCE_REDUCTION_MEAN);
  const Truth truth(float32_inputs(c));
  const Outputs good = rounded(truth.exact);
  FNCE_CHECK_VERDICT(compare_pair(c, truth, good, good));
  FNCE_CHECK_VERDICT(compare_pair(c, truth, good, rounded(truth.naive)));
  const auto rejects = [&](const Outputs& bad) {
    CHECK_FALSE(compare_pair(c, truth, good, bad).ok);
    CHECK_FALSE(compare_pair(c, truth, bad, good).ok);
  };
  Outputs bad = good;
  bad.loss[0] *= 1 + 2e-4f;
  rejects(bad);
  bad = good;
  for (size_t col = 0; col < 64; ++col) bad.dk[64 * 5 + col] *= 1 + 2e-4f;
  rejects(bad);
  bad = good;
  bad.dtemperature_rows[7] = std::numeric_limits<float>::quiet_NaN();
  rejects(bad);
  bad = good;
  bad.dq.pop_back();
  rejects(bad);
}

TEST_CASE("tolerance: a planted relative error in what the steps of a call hand on is rejected") {
  const Case c = ordinary(FNCE_LAMBDA_ELEMENT, 0.2f, FNCE_REDUCTION_MEAN);
  const Truth truth(float32_inputs(c));
  const auto anchors_of = [](const auto& r) { return std::vector<float>(r.anchor.begin(), r.anchor.end()); };
  const auto positives_of = [](const auto& r) { return std::vector<float>(r.mixed.pos.begin(), r.mixed.pos.end()); };
  const auto log_sum_of = [](const auto& r) { return std::vector<float>(r.log_sum_exp.begin(), r.log_sum_exp.end()); };
  const auto mean_of = [](const auto& r) {
    std::vector<float> mean;
    for (size_t i = 0; i < r.partial_o.size(); ++i)
      mean.push_back(static_cast<float>(r.partial_o[i] / r.partial_l[i / 64]));
    return mean;
  };
  FNCE_CHECK_VERDICT(compare_anchors(truth, anchors_of(truth.naive)));
  FNCE_CHECK_VERDICT(compare_positives(truth, ScoreSet::kMixed, positives_of(truth.naive)));
  FNCE_CHECK_VERDICT(compare_softmax(truth, log_sum_of(truth.naive), mean_of(truth.naive)));
  for (size_t row = 0; row < 33; ++row) {
    std::vector<float> anchors = anchors_of(truth.exact), positives = positives_of(truth.exact);
    std::vector<float> log_sum = log_sum_of(truth.exact), mean = mean_of(truth.exact);
    for (size_t col = 0; col < 64; ++col) anchors[row * 64 + col] *= 1 + 1e-4f;
    CHECK_FALSE(compare_anchors(truth, anchors).ok);
    positives[row] *= 1 + 1e-4f;
    CHECK_FALSE(compare_positives(truth, ScoreSet::kMixed, positives).ok);
    log_sum[row] *= 1 + 1e-4f;
    CHECK_FALSE(compare_softmax(truth, log_sum, mean).ok);
    log_sum = log_sum_of(truth.exact);
    for (size_t col = 0; col < 64; ++col) mean[row * 64 + col] *= 1 + 1e-3f;
    CHECK_FALSE(compare_softmax(truth, log_sum, mean).ok);
  }
}
