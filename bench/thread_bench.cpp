// The cost of having threads: a problem of two tasks and almost no work, on one thread and on two or more.
//
// "busy" calls it in a row, so that the workers are still awake; "idle" waits before each call until they sleep, which
// is what a training loop sees, where a loss comes once per step. The difference between t:1 and the others is the
// price.
#include <chrono>
#include <string>
#include <thread>

#include "workload.h"

namespace fnce::bench {
namespace {

// The smallest number of negatives that is cut into two tasks is near 1000; few queries and features keep the work
// small.
constexpr Shape kShape{16, 1024, 16};
constexpr std::chrono::milliseconds kPause{5};

void busy(benchmark::State& state, int32_t threads) {
  LossCall call(preset_of(FNCE_PRESET_FT, threads), kShape, Gradients::kDq);
  if (!succeeded(state, call.status())) return;
  for (auto _ : state) {
    if (!succeeded(state, call.run())) return;
  }
}

void idle(benchmark::State& state, int32_t threads) {
  using Clock = std::chrono::steady_clock;
  LossCall call(preset_of(FNCE_PRESET_FT, threads), kShape, Gradients::kDq);
  if (!succeeded(state, call.status())) return;
  for (auto _ : state) {
    std::this_thread::sleep_for(kPause);
    const auto start = Clock::now();
    if (!succeeded(state, call.run())) return;
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count());
  }
}

}  // namespace

void register_thread_benchmarks() {
  std::vector<int32_t> counts = thread_counts();
  if (counts.back() > 2) counts.insert(counts.begin() + 1, 2);
  for (const int32_t threads : counts) {
    const std::string suffix = "/t:" + std::to_string(threads);
    benchmark::RegisterBenchmark(("wake_up/busy" + suffix).c_str(),
                                 [threads](benchmark::State& state) { busy(state, threads); })
        ->UseRealTime()
        ->MinTime(kMinSeconds);
    // A fixed number of calls: the pauses do not count as time, and would otherwise add up to minutes.
    benchmark::RegisterBenchmark(("wake_up/idle" + suffix).c_str(),
                                 [threads](benchmark::State& state) { idle(state, threads); })
        ->UseManualTime()
        ->Iterations(100);
  }
}

}  // namespace fnce::bench
