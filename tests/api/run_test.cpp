// fnce_run: the bits of fnce_loss without a plan, for many problems, from many threads.
#include <cstring>
#include <thread>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"

namespace {

using namespace support;

Outputs run_stateless(const Case& c) {
  size_t bytes = 0;
  require_ok(fnce_run_workspace(&c.problem, &bytes));
  const Call call(c);
  const Buffer<unsigned char> workspace(std::vector<unsigned char>(bytes, 0xFF));
  require_ok(fnce_run(&c.problem, &call.args, workspace.get(), workspace.bytes(), device().stream()));
  call.check_memory();
  return call.outputs();
}

}  // namespace

TEST_CASE("run: equals the call with a plan, for many different problems, again and again") {
  const auto count = static_cast<uint64_t>(affordable_repeats(150, 40));
  for (int round = 0; round < 2; ++round) {
    for (uint64_t seed = 1; seed <= count; ++seed) {
      const Case c = random_case(seed + 9000);
      INFO(c.label);
      const Plan plan(c.problem);
      size_t bytes = 0;
      FNCE_REQUIRE_OK(fnce_run_workspace(&c.problem, &bytes));
      CHECK(bytes == plan.workspace_bytes());
      if (c.problem.n * c.problem.k * c.problem.d > affordable_repeats(1'000'000, 100'000)) continue;
      CHECK(same_bits(run_loss(c, plan), run_stateless(c)));
    }
  }
}

TEST_CASE("run: problems that differ in one field are different problems") {
  Case c = make_case(FNCE_PRESET_FT, 9, 64, 16);
  Random random(3);
  fill_inputs(c, random);
  const Outputs first = run_stateless(c);
  Case query = c;
  query.problem.anchor = FNCE_ANCHOR_QUERY;
  CHECK_FALSE(same_bits(first.dq, run_stateless(query).dq));
  Case both = c;
  both.problem.columns = FNCE_COLUMNS_UNION;
  CHECK_FALSE(same_bits(first.loss, run_stateless(both).loss));
  CHECK(same_bits(first, run_stateless(c)));
}

TEST_CASE("run: a larger struct with a zero tail is the same problem") {
  Case c = make_case(FNCE_PRESET_FT, 9, 64, 16);
  Random random(4);
  fill_inputs(c, random);
  const Outputs expected = run_stateless(c);
  struct Newer {
    fnce_problem problem;
    unsigned char tail[16];
  } newer{};
  newer.problem = c.problem;
  newer.problem.struct_size = sizeof newer;
  size_t bytes = 0;
  FNCE_REQUIRE_OK(fnce_run_workspace(&newer.problem, &bytes));
  const Call call(c);
  const Buffer<unsigned char> workspace(static_cast<int64_t>(bytes));
  FNCE_REQUIRE_OK(fnce_run(&newer.problem, &call.args, workspace.get(), bytes, device().stream()));
  CHECK(same_bits(expected, call.outputs()));
}

TEST_CASE("run: from several threads at once") {
  constexpr uint64_t kCases = 24;
  std::vector<Case> cases;
  std::vector<Outputs> expected;
  for (uint64_t seed = 0; cases.size() < kCases; ++seed) {
    Case c = random_case(seed + 20000);
    if (c.problem.n * c.problem.k * c.problem.d > affordable_repeats(200'000, 30'000)) continue;
    expected.push_back(run_loss(c));
    cases.push_back(std::move(c));
  }
  std::vector<int> same(3 * kCases, 0);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kCases; ++i) {
        const uint64_t at = (i + 7 * t) % kCases;
        same[t * kCases + at] = same_bits(expected[at], run_stateless(cases[at]));
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const int value : same) CHECK(value == 1);
}
