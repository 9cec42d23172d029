// Runs a kernel with a planted mistake, so that planted_test.cpp sees what becomes of it: usage `hostcuda_planted
// MISTAKE`, with the schedule in the environment. Prints "wrong results", "fault: ..." or "unnoticed"; a sanitizer may
// speak first.
#include <cstdio>
#include <cstring>

#include "hostcuda/selftest/problems.h"

namespace {

using selftest::Bug;
using selftest::Result;
using selftest::SumBug;

template <Bug bug>
Result gemm() {
  return selftest::run_gemm<bug>(64, 64, 160);
}
template <SumBug bug>
Result sum() {
  return selftest::run_sum<bug>(5000, 3);
}

struct Mistake {
  const char* name;
  Result (*run)();
};
constexpr Mistake kMistakes[] = {
    {"none", gemm<Bug::kNone>},
    {"no_barrier_before_reading", gemm<Bug::kNoBarrierBeforeReading>},
    {"no_barrier_after_reading", gemm<Bug::kNoBarrierAfterReading>},
    {"waits_for_too_few_groups", gemm<Bug::kWaitsForTooFewGroups>},
    {"copies_out_of_bounds", gemm<Bug::kCopiesOutOfBounds>},
    {"reads_out_of_bounds", gemm<Bug::kReadsOutOfBounds>},
    {"none_in_sum", sum<SumBug::kNone>},
    {"divergent_shuffle", sum<SumBug::kDivergentShuffle>},
    {"no_syncwarp", sum<SumBug::kNoSyncwarp>},
    {"plain_across_blocks", sum<SumBug::kPlainAcrossBlocks>},
    {"no_fence", sum<SumBug::kNoFence>},
    {"two_writers", sum<SumBug::kTwoWriters>},
    {"divergent_barrier", sum<SumBug::kDivergentBarrier>},
    {"barrier_after_exit", sum<SumBug::kBarrierAfterExit>},
    {"two_barriers", sum<SumBug::kTwoBarriers>},
    {"partial_mask", sum<SumBug::kPartialMask>},
};

}  // namespace

int main(int argc, char** argv) {
  for (const Mistake& mistake : kMistakes) {
    if (argc != 2 || std::strcmp(argv[1], mistake.name) != 0) continue;
    hostcuda::Options options = hostcuda::options();
    options.quiet = true;
    hostcuda::set_options(options);
    const Result result = mistake.run();
    if (result.code)
      std::printf("fault: %s\n", hostcuda::last_failure().c_str());
    else
      std::printf(result.right ? "unnoticed\n" : "wrong results\n");
    return 0;
  }
  std::fprintf(stderr, "usage: hostcuda_planted MISTAKE; mistakes:\n");
  for (const Mistake& mistake : kMistakes) std::fprintf(stderr, "  %s\n", mistake.name);
  return 2;
}
