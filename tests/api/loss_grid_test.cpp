// fnce_loss against the oracle over a randomised grid of every option and shape. FNCE_TEST_SEED and FNCE_TEST_CASES
// choose another part of the grid; a failure prints the seed of its case.
#include <cstdlib>
#include <string>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

uint64_t environment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

// A gradient must stand out of its tolerance, except where it is zero by the maths: no columns, one feature that is
// normalised away, identical rows, nothing but weights of zero.
bool expects_signal(const Case& c) {
  const fnce_problem& p = c.problem;
  if (p.k < 2 || p.d < 8) return false;
  for (const float weight : c.arrays.weight)
    if (weight != 0) return true;
  return c.arrays.weight.empty();
}

void run_grid(uint64_t first, uint64_t count) {
  uint64_t with_signal = 0, expected_signal = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    const Case c = random_case(seed);
    INFO(c.label);
    const Outputs actual = run_loss(c);
    const Truth truth(oracle_inputs(c));
    FNCE_CHECK_VERDICT(compare_all(c, truth, actual));
    if (!expects_signal(c)) continue;
    ++expected_signal;
    with_signal += gradient_has_signal(truth);
  }
  CHECK(10 * with_signal >= 9 * expected_signal);
}

}  // namespace

namespace {

uint64_t cases() { return environment("FNCE_TEST_CASES", static_cast<uint64_t>(affordable_repeats(200, 60))); }

}  // namespace

TEST_CASE("loss: randomised grid, part 1") { run_grid(environment("FNCE_TEST_SEED", 1), cases()); }

TEST_CASE("loss: randomised grid, part 2") { run_grid(environment("FNCE_TEST_SEED", 1) + cases(), cases()); }

TEST_CASE("loss: every granularity of positives and negatives at every shape class") {
  uint64_t seed = 1000;
  for (int32_t pos = FNCE_LAMBDA_NONE; pos <= FNCE_LAMBDA_ELEMENT; ++pos) {
    for (int32_t neg = FNCE_LAMBDA_NONE; neg <= FNCE_LAMBDA_ELEMENT; ++neg) {
      const int64_t shapes[][3] = {{1, 1, 1}, {5, 37, 13}, {49, 100, 100}, {33, 257, 300}};
      for (const auto& shape : shapes) {
        Random random(++seed);
        const int64_t k = affordable(shape[0], shape[1], shape[2]);
        Case c = make_case(FNCE_PRESET_MOCO, shape[0], k, shape[2]);
        c.problem.lambda_pos = pos;
        c.problem.lambda_neg = neg;
        c.problem.columns = neg == FNCE_LAMBDA_NONE ? FNCE_COLUMNS_QUEUE : FNCE_COLUMNS_MIXED;
        c.problem.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
        c.numbers.seed = seed;
        fill_inputs(c, random);
        INFO(describe(c));
        FNCE_CHECK_VERDICT(check_case(c));
      }
    }
  }
}

TEST_CASE("loss: larger shapes of use") {
  const int32_t preset = GENERATE(values<int32_t>({FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}));
  const int64_t shapes[][3] = {{130, 4096, 128}, {32, 8191, 64}, {3, 1000, 1024}};
  for (const auto& shape : shapes) {
    Random random(77 + static_cast<uint64_t>(preset));
    Case c = make_case(preset, shape[0], affordable(shape[0], shape[1], shape[2]), shape[2]);
    c.problem.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
    fill_inputs(c, random);
    INFO(describe(c));
    const Outputs actual = run_loss(c);
    const Truth truth(oracle_inputs(c));
    CHECK(gradient_has_signal(truth));
    FNCE_CHECK_VERDICT(compare_all(c, truth, actual));
  }
}
