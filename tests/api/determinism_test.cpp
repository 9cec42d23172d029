// Same inputs, seed and plan: the same bits, over repeats, plans, workspaces full of garbage, threads of the library
// and threads of the caller.
#include <cmath>
#include <thread>
#include <vector>

#include "support/check.h"
#include "support/problem.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

// Shapes with one and several row blocks and key chunks, each with another way of mixing.
std::vector<Case> cases() {
  struct Shape {
    int64_t n, k, d;
    int32_t preset;
  };
  std::vector<Case> out;
  for (const Shape& s : {Shape{7, 100, 13, FNCE_PRESET_FT}, Shape{33, 3000, 64, FNCE_PRESET_FT},
                         Shape{64, 2049, 32, FNCE_PRESET_FT_ELEMENTWISE}, Shape{1100, 700, 16, FNCE_PRESET_FT},
                         Shape{5, 20000, 24, FNCE_PRESET_MOCO}}) {
    Case c = make_case(s.preset, s.n, affordable(s.n, s.k, s.d), s.d);
    c.problem.scores = kBoth;
    if (s.preset == FNCE_PRESET_FT && s.n == 33) c.problem.columns = FNCE_COLUMNS_UNION;
    c.numbers.seed = static_cast<uint64_t>(s.n);
    Random random(c.numbers.seed);
    fill_inputs(c, random);
    out.push_back(std::move(c));
  }
  return out;
}

}  // namespace

TEST_CASE("determinism: repeats, plans and garbage in the workspace") {
  for (const Case& c : cases()) {
    INFO(describe(c));
    const Plan plan(c.problem);
    const Outputs first = run_loss(c, plan, 0x00);
    CHECK(same_bits(first, run_loss(c, plan, 0x00)));
    for (const unsigned char garbage : {0xFF, 0x7F, 0xAB}) {
      CHECK(same_bits(first, run_loss(c, plan, garbage)));
      CHECK(same_bits(first, run_loss(c, garbage)));
    }
  }
}

TEST_CASE("determinism: any number of threads, of the plan and of the process") {
  const int32_t before = fnce_get_threads();
  for (Case c : cases()) {
    INFO(describe(c));
    c.problem.threads = 1;
    const Outputs single = run_loss(c);
    for (const int32_t threads : {2, 3, 8, 32}) {
      c.problem.threads = threads;
      INFO(threads << " threads");
      CHECK(same_bits(single, run_loss(c)));
    }
    c.problem.threads = 0;
    for (const int32_t threads : {1, 5}) {
      FNCE_REQUIRE_OK(fnce_set_threads(threads));
      CHECK(same_bits(single, run_loss(c)));
    }
    FNCE_REQUIRE_OK(fnce_set_threads(before));
  }
}

TEST_CASE("determinism: a row's place in the batch and the batch's size do not change its loss beyond rounding") {
  // Not bits: the tiling depends on the shape. The draws of rows must follow row_offset.
  Case c = make_case(FNCE_PRESET_FT_ELEMENTWISE, 8, 64, 16);
  c.problem.reduction = FNCE_REDUCTION_NONE;
  Random random(5);
  fill_inputs(c, random);
  const Outputs all = run_loss(c);
  Case one = c;
  one.problem.n = 1;
  one.problem.row_offset = 5;
  one.arrays.x_q.assign(c.arrays.x_q.begin() + 5 * 16, c.arrays.x_q.begin() + 6 * 16);
  one.arrays.x_k.assign(c.arrays.x_k.begin() + 5 * 16, c.arrays.x_k.begin() + 6 * 16);
  CHECK(std::abs(run_loss(one).loss[0] - all.loss[5]) < 1e-5f * std::abs(all.loss[5]));
}

TEST_CASE("determinism: threads of the caller share one plan, each with its own workspace") {
  for (const Case& c : cases()) {
    INFO(describe(c));
    const Plan plan(c.problem);
    const Outputs expected = run_loss(c, plan);
    constexpr int kThreads = 2, kRepeats = 3;
    std::vector<Outputs> results(kThreads * kRepeats);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        for (int r = 0; r < kRepeats; ++r) results[static_cast<size_t>(t * kRepeats + r)] = run_loss(c, plan);
      });
    for (std::thread& thread : threads) thread.join();
    for (const Outputs& result : results) CHECK(same_bits(expected, result));
  }
}
