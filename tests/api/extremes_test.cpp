// The ends of the ranges: rows below epsilon, scores that force the running softmax to
// start over, keys that are all equal or opposite, tiny losses.
#include <cmath>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

Case plain_case(int32_t preset, int64_t n, int64_t k, int64_t d, uint64_t seed) {
  Case c = make_case(preset, n, k, d);
  c.problem.scores = kBoth;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

void scale_row(std::vector<float>& rows, int64_t row, int64_t d, float by) {
  for (int64_t c = row * d; c < (row + 1) * d; ++c) rows[c] *= by;
}

// Queries along the first axis; key j scores `score[j]`, its rest stands on the second axis.
Case planted_case(const std::vector<double>& score, double positive, float temperature) {
  const int64_t d = 20;
  Case c = make_case(FNCE_PRESET_MOCO, 3, static_cast<int64_t>(score.size()), d);
  c.problem.scores = kBoth;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.numbers.temperature = temperature;
  c.arrays.x_q.assign(3 * d, 0.0f);
  c.arrays.x_k.assign(3 * d, 0.0f);
  for (int64_t i = 0; i < 3; ++i) {
    c.arrays.x_q[i * d] = 1;
    c.arrays.x_k[i * d] = static_cast<float>(positive);
    c.arrays.x_k[i * d + 2] = static_cast<float>(std::sqrt(1 - positive * positive));
  }
  c.arrays.queue.assign(score.size() * d, 0.0f);
  for (size_t j = 0; j < score.size(); ++j) {
    c.arrays.queue[j * d] = static_cast<float>(score[j]);
    c.arrays.queue[j * d + 1] = static_cast<float>(std::sqrt(std::max(0.0, 1 - score[j] * score[j])));
  }
  return c;
}

}  // namespace

TEST_CASE("extremes: rows below epsilon, in x_q and x_k") {
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    for (const float scale : {1e-14f, 1e-20f, 1e-38f}) {
      Case c = plain_case(preset, 6, 50, 17, 90);
      c.problem.scores = FNCE_SCORES_NONE;
      scale_row(c.arrays.x_q, 1, 17, scale);
      scale_row(c.arrays.x_k, 2, 17, scale);
      scale_row(c.arrays.x_q, 3, 17, scale);
      scale_row(c.arrays.x_k, 3, 17, scale);
      INFO(describe(c) << ", scale " << scale);
      FNCE_CHECK_VERDICT(check_case(c));
    }
  }
}

TEST_CASE("extremes: an epsilon that rows are below") {
  for (const bool renormalize : {false, true}) {
    Case c = plain_case(FNCE_PRESET_FT, 8, 50, 17, 91);
    c.numbers.epsilon = 0.5f;
    c.problem.renormalize_pos = c.problem.renormalize_neg = renormalize;
    for (int64_t i = 0; i < 8; i += 2) scale_row(c.arrays.x_q, i, 17, 0.01f);
    for (int64_t i = 0; i < 8; i += 3) scale_row(c.arrays.x_k, i, 17, 0.02f);
    for (int64_t j = 0; j < 50; j += 5) scale_row(c.arrays.queue, j, 17, 0.1f);
    INFO(describe(c));
    FNCE_CHECK_VERDICT(check_case(c));
  }
}

TEST_CASE("extremes: one close negative among far ones, 17 nats and more apart, wherever it stands") {
  for (const float temperature : {0.1f, 0.02f, 0.003f}) {
    for (const size_t place : {size_t{0}, size_t{1}, size_t{95}, size_t{96}, size_t{500}, size_t{999}}) {
      std::vector<double> score(1000, -0.85);
      score[place] = 0.85;
      for (const double positive : {0.8, 0.0, -0.9}) {
        const Case c = planted_case(score, positive, temperature);
        INFO("temperature " << temperature << ", place " << place << ", positive " << positive);
        FNCE_CHECK_VERDICT(check_case(c));
      }
    }
  }
}

TEST_CASE("extremes: one far negative among close ones") {
  for (const float temperature : {0.1f, 0.003f}) {
    for (const size_t place : {size_t{0}, size_t{500}, size_t{999}}) {
      std::vector<double> score(1000, 0.85);
      score[place] = -0.85;
      INFO("temperature " << temperature << ", place " << place);
      FNCE_CHECK_VERDICT(check_case(planted_case(score, 0.8, temperature)));
    }
  }
}

TEST_CASE("extremes: scores that rise or fall all along the queue") {
  for (const bool rising : {true, false}) {
    for (const float temperature : {0.07f, 0.003f}) {
      std::vector<double> score(3000);
      for (size_t j = 0; j < score.size(); ++j) score[j] = (rising ? 1 : -1) * (2.0 * double(j) / 2999 - 1);
      INFO("rising " << rising << ", temperature " << temperature);
      FNCE_CHECK_VERDICT(check_case(planted_case(score, 0.5, temperature)));
    }
  }
}

TEST_CASE("extremes: sudden maxima under score mixing and the union") {
  for (const int32_t columns : {FNCE_COLUMNS_MIXED, FNCE_COLUMNS_UNION}) {
    for (const int32_t granularity : {FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW, FNCE_LAMBDA_ELEMENT}) {
      std::vector<double> score(1000, -0.9);
      for (const size_t place : {size_t{3}, size_t{400}, size_t{999}}) score[place] = 0.3 + double(place) / 2000;
      Case c = planted_case(score, 0.7, 0.01f);
      c.problem.lambda_neg = granularity;
      c.problem.columns = columns;
      INFO(describe(c));
      FNCE_CHECK_VERDICT(check_case(c));
    }
  }
}

TEST_CASE("extremes: all keys equal; keys opposite to the queries; keys equal to them") {
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT}) {
    Case equal = plain_case(preset, 9, 200, 40, 93);
    for (size_t i = 0; i < equal.arrays.queue.size(); ++i) equal.arrays.queue[i] = equal.arrays.queue[i % 40];
    INFO(describe(equal));
    FNCE_CHECK_VERDICT(check_case(equal));
    for (const float sign : {-1.0f, 1.0f}) {
      Case c = plain_case(preset, 1, 200, 40, 94);
      std::vector<float> row = c.arrays.x_q;
      normalize_rows(row, 40);
      for (size_t i = 0; i < c.arrays.queue.size(); ++i) c.arrays.queue[i] = sign * row[i % 40];
      for (const float temperature : {0.07f, 0.003f}) {
        c.numbers.temperature = temperature;
        INFO("sign " << sign << ", temperature " << temperature);
        FNCE_CHECK_VERDICT(check_case(c));
      }
    }
  }
}

TEST_CASE("extremes: losses down to the smallest keep their digits, and so do their gradients") {
  for (const float temperature : {0.12f, 0.1f, 0.06f, 0.03f}) {
    const std::vector<double> score(300, -0.9);
    const Case c = planted_case(score, 0.95, temperature);
    const Outputs out = run_loss(c);
    const Truth truth(oracle_inputs(c));
    INFO("temperature " << temperature << ", loss " << truth.exact.loss[0]);
    REQUIRE(truth.exact.loss[0] < 1e-4);
    CHECK(std::abs(double(out.loss[0]) / truth.exact.loss[0] - 1) < 1e-4);
    FNCE_CHECK_VERDICT(compare_all(c, truth, out));
  }
}
