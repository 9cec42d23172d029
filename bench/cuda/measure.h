// Google Benchmark around what is put on a stream: times between CUDA events, as its manual time.
#pragma once
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cuda/device.h"

namespace fnce::bench::gpu {

// All benchmarks of the program share this.
struct Session {
  Stopwatch watch;
  bool device_failed = false;  // and then it fails for everything that follows
};

enum class Way { kStream, kGraph };

// Runs `enqueue`, which puts `steps` equal steps on the stream, as often as Google Benchmark asks; the time is that of
// one step.
template <class Enqueue>
void measure(benchmark::State& state, const Session& session, Way way, int steps, const Enqueue& enqueue) {
  const auto repeat = [&](const auto& once) {
    session.watch.seconds(once);  // warm
    while (state.KeepRunningBatch(steps)) state.SetIterationTime(session.watch.seconds(once));
  };
  if (way == Way::kStream) return repeat(enqueue);
  const Graph graph(session.watch.stream(), enqueue);
  repeat([&] { graph.launch(session.watch.stream()); });
}

// Registers `body`, a function of a benchmark::State that may throw: the benchmark then ends with the sentence, in all
// its repetitions. One that fails after it has succeeded ends the program: Google Benchmark knows no half of an error.
template <class Body>
void register_benchmark(Session& session, const std::string& name, Body body) {
  struct Outcome {
    bool succeeded = false;
    std::string error;
  };
  const auto guarded = [&session, body, outcome = std::make_shared<Outcome>()](benchmark::State& state) {
    if (session.device_failed) outcome->error = "the device failed before";
    if (!outcome->error.empty()) return state.SkipWithError(outcome->error.c_str());
    try {
      body(state);
      outcome->succeeded = true;
    } catch (const std::exception& error) {
      session.device_failed = cudaDeviceSynchronize() != cudaSuccess;
      cudaGetLastError();
      if (outcome->succeeded) throw;
      outcome->error = error.what();
      state.SkipWithError(error.what());
    }
  };
  const auto least = [](const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); };
  const auto most = [](const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); };
  benchmark::RegisterBenchmark(name.c_str(), guarded)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->ComputeStatistics("min", least)
      ->ComputeStatistics("max", most);
}

}  // namespace fnce::bench::gpu
