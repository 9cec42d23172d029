// Values that formulas trip over, in every preset and against the oracle: temperatures over six decades, subnormal
// numbers, zero rows, equal rows, keys that occur twice, and the smallest and largest shapes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

enum class Loss { kMoco, kFt, kFtElementwise, kUnion };
const std::vector<Loss> kLosses{Loss::kMoco, Loss::kFt, Loss::kFtElementwise, Loss::kUnion};

Case empty_case(Loss loss, int64_t n, int64_t k, int64_t d) {
  const int32_t preset = loss == Loss::kMoco            ? FNCE_PRESET_MOCO
                         : loss == Loss::kFtElementwise ? FNCE_PRESET_FT_ELEMENTWISE
                                                        : FNCE_PRESET_FT;
  Case c = make_case(preset, n, k, d);
  if (loss == Loss::kUnion) c.problem.columns = FNCE_COLUMNS_UNION;
  c.problem.scores = kBoth;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  return c;
}

Case filled_case(Loss loss, int64_t n, int64_t k, int64_t d, uint64_t seed, int32_t queue_type = FNCE_FLOAT32) {
  Case c = empty_case(loss, n, k, d);
  set_types(c, FNCE_FLOAT32, queue_type, FNCE_FLOAT32);
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

// Below the smallest normal number float32 keeps no relative accuracy, so the policy of relative errors has nothing to
// hold on to there. Each value within 2e-5 of the largest in its row, and 64 steps of the subnormal grid, which the
// gradient of the temperature amplifies by 1/temperature^2.
void check_near(const char* name, const std::vector<double>& truth, const std::vector<float>& actual, int64_t rows,
                double floor) {
  REQUIRE(truth.size() == actual.size());
  const size_t width = truth.size() / static_cast<size_t>(rows);
  for (size_t i = 0; i < truth.size(); ++i) {
    double largest = 0;
    for (size_t c = i / width * width; c < (i / width + 1) * width; ++c)
      largest = std::max(largest, std::abs(truth[c]));
    INFO(name << "[" << i << "] is " << actual[i] << ", truth " << truth[i]);
    REQUIRE(std::abs(actual[i] - truth[i]) <= 2e-5 * largest + floor);
  }
}

void check_with_subnormals(const Case& c) {
  INFO(describe(c));
  const Outputs out = run_loss(c);
  const Truth truth(oracle_inputs(c));
  const int64_t n = c.problem.n;
  const double step = 64 * 0x1p-149, tau = static_cast<double>(c.numbers.temperature);
  check_near("loss", truth.exact.loss, out.loss, n, step);
  check_near("dq", truth.exact.dq, out.dq, n, step / tau);
  check_near("dk", truth.exact.dk, out.dk, n, step / tau);
  check_near("dtemperature_rows", truth.exact.dtemperature_rows, out.dtemperature_rows, n, step / tau / tau);
}

// Row i of `rows` becomes row `from` of `source`.
void copy_row(const std::vector<float>& source, int64_t from, std::vector<float>& rows, int64_t i, int64_t d) {
  std::copy_n(source.begin() + from * d, d, rows.begin() + i * d);
}

void scale_row(std::vector<float>& rows, int64_t i, int64_t d, float by) {
  for (int64_t c = i * d; c < (i + 1) * d; ++c) rows[static_cast<size_t>(c)] *= by;
}

void check_against_oracle(const Case& c) {
  INFO(describe(c));
  FNCE_CHECK_VERDICT(check_case(c));
}

}  // namespace

TEST_CASE("special: temperatures from 1e-3 to 1e4") {
  for (const Loss loss : kLosses)
    for (const int32_t queue_type : kTypes)
      for (int tenths = -30; tenths <= 40; tenths += affordable_repeats(5, 15)) {
        Case c = filled_case(loss, 12, 150, 24, 301, queue_type);
        c.numbers.temperature = static_cast<float>(std::pow(10.0, tenths / 10.0));
        check_against_oracle(c);
      }
}

TEST_CASE("special: no negatives, one negative, one query, one feature") {
  struct Shape {
    int64_t n, k, d;
  };
  for (const Loss loss : kLosses)
    for (const int32_t queue_type : kTypes)
      for (const Shape& s : {Shape{5, 0, 8}, Shape{5, 1, 8}, Shape{1, 0, 1}, Shape{1, 1, 1}, Shape{1, 40, 8},
                             Shape{7, 40, 1}, Shape{1, 2, 3}})
        for (const float temperature : {1e-3f, 0.07f, 1e3f}) {
          Case c = filled_case(loss, s.n, s.k, s.d, 302, queue_type);
          c.numbers.temperature = temperature;
          check_against_oracle(c);
        }
}

TEST_CASE("special: many features") {
  const bool few = device().emulated();
  for (const Loss loss : kLosses) check_against_oracle(filled_case(loss, 2, 5, few ? 3011 : 30011, 303));
  check_against_oracle(filled_case(Loss::kFt, 1, 2, few ? 1 << 14 : 1 << 20, 304));
}

TEST_CASE("special: subnormal features, normalised and not") {
  // With an epsilon above every norm normalising divides by it; without normalisation scores are subnormal or 0.
  for (const Loss loss : kLosses)
    for (const int32_t normalize : {0, 1})
      for (const float scale : {1e-39f, 1e-42f, 1.4e-45f}) {
        Case c = filled_case(loss, 6, 40, 13, 305);
        c.problem.normalize = normalize;
        for (const int64_t i : {1, 3}) scale_row(c.arrays.x_q, i, 13, scale);
        for (const int64_t i : {2, 3}) scale_row(c.arrays.x_k, i, 13, scale);
        check_with_subnormals(c);
      }
}

TEST_CASE("special: subnormal rows in the queue, and nothing else in it") {
  for (const Loss loss : kLosses)
    for (const float scale : {1e-30f, 1e-39f, 1e-42f}) {
      Case c = filled_case(loss, 6, 40, 13, 306);
      for (const int64_t j : {0, 7, 39}) scale_row(c.arrays.queue, j, 13, scale);
      check_with_subnormals(c);
      for (float& value : c.arrays.queue) value *= scale;
      check_with_subnormals(c);
    }
}

TEST_CASE("special: zero rows in the queue, and nothing else in it") {
  for (const Loss loss : kLosses) {
    Case c = filled_case(loss, 6, 40, 13, 306);
    for (const int64_t j : {0, 7, 39}) scale_row(c.arrays.queue, j, 13, 0.0f);
    check_against_oracle(c);
    std::fill(c.arrays.queue.begin(), c.arrays.queue.end(), 0.0f);
    check_against_oracle(c);
  }
}

TEST_CASE("special: zero rows in x_q and x_k") {
  for (const Loss loss : kLosses) {
    Case c = filled_case(loss, 6, 40, 13, 307);
    for (const int64_t i : {1, 3}) scale_row(c.arrays.x_q, i, 13, 0.0f);
    for (const int64_t i : {2, 3}) scale_row(c.arrays.x_k, i, 13, 0.0f);
    check_against_oracle(c);
  }
}

TEST_CASE("special: keys that occur many times, the positive among them") {
  for (const Loss loss : kLosses) {
    Case c = filled_case(loss, 6, 60, 13, 308);
    std::vector<float> keys = c.arrays.x_k;
    normalize_rows(keys, 13);
    for (int64_t j = 0; j < 60; ++j) {
      if (j % 3 == 0) copy_row(keys, 2, c.arrays.queue, j, 13);
      if (j % 3 == 1) copy_row(c.arrays.queue, 2, c.arrays.queue, j, 13);
    }
    check_against_oracle(c);
  }
}

TEST_CASE("special: a collapsed encoder, all rows equal, ranks no positive first") {
  for (const Loss loss : kLosses)
    for (const int32_t type : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
      for (const float temperature : {1e-3f, 0.07f, 1e3f}) {
        Case c = empty_case(loss, 6, 100, 24);
        set_types(c, type, type, FNCE_FLOAT32);
        c.numbers.temperature = temperature;
        Random random(309);
        fill_inputs(c, random);
        std::vector<float> row(c.arrays.x_q.begin(), c.arrays.x_q.begin() + 24);
        for (int64_t i = 0; i < 6; ++i) {
          copy_row(row, 0, c.arrays.x_q, i, 24);
          copy_row(row, 0, c.arrays.x_k, i, 24);
        }
        // The queue holds what a push of such keys makes of them.
        normalize_rows(row, 24);
        for (int64_t j = 0; j < 100; ++j) copy_row(row, 0, c.arrays.queue, j, 24);
        set_types(c, type, type, FNCE_FLOAT32);
        INFO(describe(c));
        const Outputs out = run_loss(c);
        for (size_t i = 0; i < 6; ++i) {
          INFO("row " << i << ": " << out.mixed.n_greater_equal[i] << " of " << out.mixed.neg_count[i]);
          CHECK(out.mixed.n_greater_equal[i] == out.mixed.neg_count[i]);
          CHECK(out.unmixed.n_greater_equal[i] == 100);
          CHECK(out.unmixed.n_greater[i] == 0);
          // Chance: as many columns as there are, all alike.
          CHECK(std::abs(out.loss[i] / std::log(1.0f + static_cast<float>(out.mixed.neg_count[i])) - 1) < 0.02f);
        }
        FNCE_CHECK_VERDICT(check_case(c));
      }
}

TEST_CASE("special: infinities at the ends of arrays make their rows, and only those, non-finite") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Loss loss : kLosses)
    for (const float poison : {kInfinity, -kInfinity})
      for (const bool first : {true, false}) {
        Case c = filled_case(loss, 5, 33, 9, 310);
        std::vector<float>& row_array = first ? c.arrays.x_q : c.arrays.x_k;
        (first ? row_array.front() : row_array.back()) = poison;
        INFO(describe(c));
        const Outputs out = run_loss(c);
        for (size_t i = 0; i < 5; ++i) {
          const bool poisoned = i == (first ? 0u : 4u);
          CHECK(std::isfinite(out.loss[i]) == !poisoned);
          CHECK(std::isfinite(out.dq[i * 9]) == !poisoned);
          CHECK(std::isfinite(out.dk[i * 9]) == !poisoned);
        }
        Case in_queue = filled_case(loss, 5, 33, 9, 310);
        (first ? in_queue.arrays.queue.front() : in_queue.arrays.queue.back()) = poison;
        for (const float value : run_loss(in_queue).loss) CHECK_FALSE(std::isfinite(value));
      }
}
