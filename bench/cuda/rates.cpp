// Measures the rates of the device that floors are made of (gpu_floors.py). Each benchmark's label says what its rate
// counts.
#include "cuda/benchmarks.h"
#include "cuda/rate_kernels.h"

namespace fnce::bench::gpu {
namespace {

constexpr unsigned kLargeRows = 1u << 22, kSmallRows = 1u << 16;  // 1 GiB, far beyond any L2; 16 MiB, within it
constexpr unsigned kSmallPasses = 64;
constexpr int kLaunches = 200;

void check_launches() { FNCE_BENCH_CHECK(cudaGetLastError()); }

void read(benchmark::State& state, const Session& session, unsigned row_count, unsigned passes) {
  const Memory rows(size_t{row_count} * rate::kRowBytes), sink(4096);
  FNCE_BENCH_CHECK(cudaMemsetAsync(rows.get(), 0x5A, rows.bytes(), session.watch.stream()));
  measure(state, session, Way::kStream, 1, [&] {
    rate::read_rows(rows.get(), sink.get(), row_count, passes, session.watch.stream());
    check_launches();
  });
  state.SetBytesProcessed(state.iterations() * int64_t{row_count} * rate::kRowBytes * passes);
}

// kernel(blocks, sink): `per_block` operations in each block.
template <class Kernel>
void compute(benchmark::State& state, const Session& session, int64_t per_block, const Kernel& kernel) {
  const unsigned blocks = static_cast<unsigned>(attribute(cudaDevAttrMultiProcessorCount)) * 8;
  const Memory sink(4096);
  measure(state, session, Way::kStream, 1, [&] {
    kernel(blocks, sink.as<float>(), session.watch.stream());
    check_launches();
  });
  state.SetItemsProcessed(state.iterations() * blocks * per_block);
}

void launches(benchmark::State& state, const Session& session, Way way, int count) {
  const unsigned blocks = static_cast<unsigned>(attribute(cudaDevAttrMultiProcessorCount));
  measure(state, session, way, count, [&] {
    for (int i = 0; i < count; ++i) rate::nothing(blocks, session.watch.stream());
    check_launches();
  });
}

}  // namespace

void register_rates(Session& session) {
  const auto put = [&session](const char* name, const char* label, auto body) {
    register_benchmark(session, std::string("rate/") + name, [&session, label, body](benchmark::State& state) {
      state.SetLabel(label);
      body(state, session);
    });
  };
  using State = benchmark::State;
  put("hbm_read", "bytes/s, 1 GiB", [](State& state, Session& s) { read(state, s, kLargeRows, 1); });
  put("l2_read", "bytes/s, 16 MiB read 64 times",
      [](State& state, Session& s) { read(state, s, kSmallRows, kSmallPasses); });

  constexpr int64_t kPerThread = int64_t{rate::kChains} * rate::kIterations;
  put("ex2", "ex2.approx/s",
      [](State& state, Session& s) { compute(state, s, kPerThread * rate::kThreads, rate::exponentials); });
  put("fma", "float32 fused multiply-adds/s",
      [](State& state, Session& s) { compute(state, s, kPerThread * rate::kThreads, rate::multiply_adds); });
  if (attribute(cudaDevAttrComputeCapabilityMajor) >= 8) {
    constexpr int64_t kPerBlock = kPerThread * (rate::kThreads / 32) * 2 * 16 * 8 * 16;
    for (const bool bfloat16 : {false, true})
      put(bfloat16 ? "mma_bf16" : "mma_f16", "operations/s, mma.sync m16n8k16", [bfloat16](State& state, Session& s) {
        compute(state, s, kPerBlock, [bfloat16](unsigned blocks, float* sink, cudaStream_t stream) {
          rate::products(blocks, bfloat16, sink, stream);
        });
      });
  }

  put("launch_stream", "us per empty kernel, back to back",
      [](State& state, Session& s) { launches(state, s, Way::kStream, kLaunches); });
  put("launch_graph", "us per empty kernel in a graph of 200",
      [](State& state, Session& s) { launches(state, s, Way::kGraph, kLaunches); });
  put("launch_one", "us between two events around one empty kernel",
      [](State& state, Session& s) { launches(state, s, Way::kStream, 1); });
}

}  // namespace fnce::bench::gpu
