// fnce_queue_push, equation (10), and fnce_scale, the backward pass: memory traffic only.
#include <string>

#include "workload.h"

namespace fnce::bench {
namespace {

constexpr int64_t kFeatures = 128;

// Keys and queue of one type; a key is read, normalised, rounded and written.
void queue_push(benchmark::State& state, const Element& element) {
  const int64_t n = state.range(0), k = state.range(1);
  const std::vector<std::byte> keys = rounded(random_rows(n, kFeatures, 1, false), element);
  std::vector<std::byte> queue = rounded(random_rows(k, kFeatures, 2, true), element);
  int64_t position = 0;
  fnce_push push;
  if (!succeeded(state, fnce_push_init(&push, sizeof push))) return;
  push.n = n, push.k = k, push.d = kFeatures;
  push.key_type = push.queue_type = element.type;
  push.keys = keys.data(), push.queue = queue.data();
  push.position_in = push.position_out = &position;
  for (auto _ : state) {
    if (!succeeded(state, fnce_queue_push(&push, nullptr))) return;
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * 2 * n * kFeatures * element.size);
}

void scale(benchmark::State& state, const Element& element) {
  const int64_t n = state.range(0);
  const std::vector<float> gradient = random_rows(n, kFeatures, 1, false);
  std::vector<std::byte> out(static_cast<size_t>(n * kFeatures * element.size));
  const float upstream = 2;
  for (auto _ : state) {
    const fnce_status status =
        fnce_scale(FNCE_CPU, 0, gradient.data(), n, kFeatures, &upstream, 1, element.type, out.data(), nullptr);
    if (!succeeded(state, status)) return;
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * n * kFeatures * (int64_t{sizeof(float)} + element.size));
}

}  // namespace

void register_queue_benchmarks(const Options& options) {
  for (const Element& element : options.elements) {
    benchmark::RegisterBenchmark(("queue_push/" + std::string(element.name)).c_str(),
                                 [element](benchmark::State& state) { queue_push(state, element); })
        ->ArgNames({"n", "k"})
        ->Args({256, 4096})
        ->Args({256, 65536})
        ->Args({1024, 65536})
        ->UseRealTime()
        ->MinTime(kMinSeconds);
    benchmark::RegisterBenchmark(("scale/" + std::string(element.name)).c_str(),
                                 [element](benchmark::State& state) { scale(state, element); })
        ->ArgName("n")
        ->Arg(256)
        ->Arg(1024)
        ->UseRealTime()
        ->MinTime(kMinSeconds);
  }
}

}  // namespace fnce::bench
