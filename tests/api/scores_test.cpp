// Score statistics, equation (9): of the loss (mixed), before mixing (unmixed), and alone (fnce_scores), with the
// conventions for no and one column, ties, offsets large against the spread, and the entropy of tiny losses.
#include <cmath>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

Case scored(int32_t preset, int64_t n, int64_t k, int64_t d, uint64_t seed) {
  Case c = make_case(preset, n, k, d);
  c.problem.scores = kBoth;
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

}  // namespace

TEST_CASE("scores: mixed and unmixed statistics, every preset, anchor and column set") {
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    for (const int32_t anchor : {FNCE_ANCHOR_MIXED, FNCE_ANCHOR_QUERY}) {
      for (const bool both : {false, true}) {
        if (both && preset == FNCE_PRESET_MOCO) continue;
        Case c = scored(preset, 33, 301, 24, 3);
        c.problem.anchor = anchor;
        if (both) c.problem.columns = FNCE_COLUMNS_UNION;
        INFO(describe(c));
        FNCE_CHECK_VERDICT(check_case(c));
        FNCE_CHECK_VERDICT(compare_statistics(Truth(oracle_inputs(c)), ScoreSet::kPlain, run_scores(c)));
      }
    }
  }
}

TEST_CASE("scores: fnce_scores serves any plan and shape") {
  const auto count = static_cast<uint64_t>(affordable_repeats(40, 15));
  for (uint64_t seed = 1; seed <= count; ++seed) {
    const Case c = random_case(seed + 5000);
    INFO(c.label);
    FNCE_CHECK_VERDICT(compare_statistics(Truth(oracle_inputs(c)), ScoreSet::kPlain, run_scores(c)));
  }
}

TEST_CASE("scores: statistics do not change the loss") {
  Case c = scored(FNCE_PRESET_FT, 17, 100, 33, 4);
  const Outputs with = run_loss(c);
  Case bare = c;
  bare.problem.scores = FNCE_SCORES_NONE;
  const Outputs without = run_loss(bare);
  if (device().kind() == FNCE_CPU) {
    CHECK(same_bits(with.loss, without.loss));
    CHECK(same_bits(with.dq, without.dq));
    return;
  }
  // A GPU has other tiles for them, and so another order of sums.
  const Truth truth(oracle_inputs(c));
  FNCE_CHECK_VERDICT(compare_all(c, truth, with));
  FNCE_CHECK_VERDICT(compare_all(bare, truth, without));
}

TEST_CASE("scores: without mixing, mixed and unmixed and fnce_scores agree") {
  const Case c = scored(FNCE_PRESET_MOCO, 20, 65, 16, 6);
  const Outputs out = run_loss(c);
  const Statistics plain = run_scores(c);
  CHECK(out.mixed.n_greater == out.unmixed.n_greater);
  CHECK(out.mixed.n_greater == plain.n_greater);
  CHECK(same_bits(out.mixed.neg_max, out.unmixed.neg_max));
}

TEST_CASE("scores: ranks of planted scores are exact") {
  // Scores are the first coordinate: the positive's is 0.5, negatives stand clearly above, on, or clearly below it.
  Case c = make_case(FNCE_PRESET_MOCO, 1, 40, 2);
  c.problem.scores = kBoth;
  c.arrays.x_q = {1, 0};
  c.arrays.x_k = {0.5f, std::sqrt(0.75f)};
  for (int j = 0; j < 40; ++j) {
    const float score = j < 11 ? 0.6f : j < 15 ? 0.5f : 0.3f;
    c.arrays.queue.push_back(score);
    c.arrays.queue.push_back(std::sqrt(1 - score * score));
  }
  const Outputs out = run_loss(c);
  for (const Statistics* s : {&out.mixed, &out.unmixed}) {
    CHECK(s->n_greater[0] == 11);
    CHECK(s->n_greater_equal[0] == 15);
    CHECK(s->neg_count[0] == 40);
  }
}

TEST_CASE("scores: conventions without columns") {
  const int32_t preset = GENERATE(values<int32_t>({FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}));
  const Case c = scored(preset, 5, 0, 12, 9);
  const Outputs out = run_loss(c);
  const Statistics plain = run_scores(c);
  for (const Statistics* s : {&out.mixed, &out.unmixed, &plain}) {
    for (size_t i = 0; i < 5; ++i) {
      CHECK(s->neg_count[i] == 0);
      CHECK(s->neg_mean[i] == 0.0f);
      CHECK(std::isnan(s->neg_variance[i]));
      CHECK(s->neg_min[i] == INFINITY);
      CHECK(s->neg_max[i] == -INFINITY);
      CHECK(s->neg_log_mean_exp[i] == -INFINITY);
      CHECK(s->n_greater[i] == 0);
      CHECK(s->n_greater_equal[i] == 0);
    }
  }
  for (size_t i = 0; i < 5; ++i) {
    CHECK(out.mixed.entropy[i] == 0.0f);
    CHECK(out.mixed.dq_norm[i] == 0.0f);
    CHECK(out.dtemperature_rows[i] == 0.0f);
  }
  CHECK(out.loss[0] == 0.0f);
  CHECK(out.dtemperature[0] == 0.0f);
  for (const auto* gradient : {&out.dq, &out.dk})
    for (const float value : *gradient) CHECK(value == 0.0f);
  FNCE_CHECK_VERDICT(compare_all(c, Truth(oracle_inputs(c)), out));
}

TEST_CASE("scores: one column has no variance") {
  const int32_t preset = GENERATE(values<int32_t>({FNCE_PRESET_MOCO, FNCE_PRESET_FT}));
  const Case c = scored(preset, 5, 1, 12, 10);
  const Outputs out = run_loss(c);
  for (const float variance : out.mixed.neg_variance) CHECK(std::isnan(variance));
  for (const float variance : out.unmixed.neg_variance) CHECK(std::isnan(variance));
  FNCE_CHECK_VERDICT(compare_all(c, Truth(oracle_inputs(c)), out));
}

TEST_CASE("scores: a mean far above the spread does not swallow the variance") {
  // Scores about 0.9 with standard deviation 0.01, as collapsing encoders have them.
  const int64_t d = 64, k = affordable(4, 3001, d);
  Case c = make_case(FNCE_PRESET_MOCO, 4, k, d);
  c.problem.scores = kBoth;
  c.problem.normalize = 0;
  Random random(11);
  c.arrays.x_q.assign(static_cast<size_t>(4 * d), 0.0f);
  for (size_t i = 0; i < 4; ++i) c.arrays.x_q[i * static_cast<size_t>(d) + i] = 1.0f;
  c.arrays.x_k = c.arrays.x_q;
  c.arrays.queue.resize(static_cast<size_t>(k * d));
  for (float& value : c.arrays.queue) value = static_cast<float>(0.9 + 0.01 * random.normal());
  const Outputs out = run_loss(c);
  const Truth truth(oracle_inputs(c));
  for (size_t i = 0; i < 4; ++i) {
    REQUIRE(truth.exact.mixed.variance[i] > 0.8e-4);
    CHECK(std::abs(double(out.mixed.neg_variance[i]) / truth.exact.mixed.variance[i] - 1) < 1e-4);
    CHECK(std::abs(double(out.mixed.neg_mean[i]) - truth.exact.mixed.mean[i]) < 1e-6);
  }
  FNCE_CHECK_VERDICT(compare_all(c, truth, out));
}

TEST_CASE("scores: entropy, from uniform to a tiny loss") {
  SECTION("uniform: all scores equal") {
    Case c = make_case(FNCE_PRESET_MOCO, 3, 999, 8);
    c.problem.scores = FNCE_SCORES_MIXED;
    c.problem.normalize = 0;
    c.arrays.x_q.assign(24, 0.0f);
    c.arrays.x_k.assign(24, 0.0f);
    c.arrays.queue.assign(999 * 8, 0.25f);
    const Outputs out = run_loss(c);
    for (const float entropy : out.mixed.entropy) CHECK(std::abs(entropy - std::log(1000.0f)) < 3e-6f);
  }
  SECTION("concentrated: the loss and the entropy are tiny, not zero") {
    Case c = make_case(FNCE_PRESET_MOCO, 2, 3, 2);
    c.problem.scores = FNCE_SCORES_MIXED;
    c.problem.normalize = 0;
    c.numbers.temperature = 0.1f;
    c.arrays.x_q = {1, 0, 1, 0};
    c.arrays.x_k = {1, 0, 0.9f, 0};
    c.arrays.queue = {-0.6f, 0.8f, -0.5f, 0.1f, -0.7f, 0};
    const Outputs out = run_loss(c);
    const Truth truth(oracle_inputs(c));
    for (size_t i = 0; i < 2; ++i) {
      REQUIRE(truth.exact.entropy[i] < 1e-4);
      REQUIRE(truth.exact.entropy[i] > 1e-8);
      CHECK(std::abs(double(out.mixed.entropy[i]) / truth.exact.entropy[i] - 1) < 1e-4);
    }
    FNCE_CHECK_VERDICT(compare_all(c, truth, out));
  }
}

TEST_CASE("scores: dq_norm is the norm of dq, also where dq is not asked for") {
  Case c = scored(FNCE_PRESET_FT, 13, 50, 20, 12);
  c.arrays.weight.assign(13, 0.7f);
  c.arrays.weight[4] = 0.0f;
  const Outputs out = run_loss(c);
  for (size_t i = 0; i < 13; ++i) {
    double squares = 0;
    for (size_t col = 0; col < 20; ++col) squares += double(out.dq[i * 20 + col]) * double(out.dq[i * 20 + col]);
    CHECK(std::abs(double(out.mixed.dq_norm[i]) - std::sqrt(squares)) <= 1e-6 * std::sqrt(squares));
  }
  CHECK(out.mixed.dq_norm[4] == 0.0f);
  c.want.dq = false;
  CHECK(same_bits(run_loss(c).mixed.dq_norm, out.mixed.dq_norm));
}
