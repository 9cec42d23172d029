// Rates of the device: memory, L2, matrix products by mma.sync, exponentials, fused multiply-adds, launches. Each kernel does one
// thing only, on all multiprocessors, long enough that a launch does not count.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/device.h"
#include "cuda/rates.h"

namespace fnce::bench::gpu {
namespace {

constexpr double kSeconds = 1;       // of one measurement, at most
constexpr unsigned kRowBytes = 256;  // read by 16 threads
constexpr unsigned kRowsPerBlock = 128;

__global__ void nothing() {}

// 128 rows a block, 8 of them in flight per thread; the grid wraps around `rows` as often as it is longer.
__global__ void __launch_bounds__(256) read_rows(const uint4* from, uint4* sink, unsigned rows) {
  const unsigned first = blockIdx.x * kRowsPerBlock % rows + threadIdx.x / 16, piece = threadIdx.x % 16;
  uint4 v[8];
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) v[i] = __ldcg(from + (static_cast<size_t>(first) + i * 16) * 16 + piece);
  unsigned folded = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) folded ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  if (folded == 0x9E3779B9u) sink[threadIdx.x] = v[0];  // never true for the data used: keeps the loads
}

// 8 independent chains a thread; x -> 2^-x converges.
__global__ void __launch_bounds__(256) exponentials(float* sink, int iterations) {
  float v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = static_cast<float>(threadIdx.x + i) * 0.001f;
#pragma unroll 4
  for (int n = 0; n < iterations; ++n)
#pragma unroll
    for (int i = 0; i < 8; ++i) asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(v[i]) : "f"(-v[i]));
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += v[i];
  if (sum == 123.0f) sink[threadIdx.x] = sum;
}

__global__ void __launch_bounds__(256) multiply_adds(float* sink, int iterations, float factor) {
  float v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = static_cast<float>(threadIdx.x + i);
#pragma unroll 8
  for (int n = 0; n < iterations; ++n)
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = __fmaf_rn(v[i], factor, 0.5f);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += v[i];
  if (sum == 123.0f) sink[threadIdx.x] = sum;
}

// 8 independent accumulators a warp, operands in registers that look like data: random bits draw the power that data does.
template <bool kBfloat>
__global__ void __launch_bounds__(256) products(float* sink, int iterations) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float d[8][4] = {};
  uint32_t a[4], b[2];
  const uint32_t one = kBfloat ? 0x3F803F80u : 0x3C003C00u, varied = kBfloat ? 0x807F807Fu : 0x83FF83FFu;
  uint32_t state = threadIdx.x * 2654435761u + blockIdx.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = one | ((state = state * 1664525u + 1013904223u) & varied);
#pragma unroll
  for (int i = 0; i < 2; ++i) b[i] = one | ((state = state * 1664525u + 1013904223u) & varied);
  for (int n = 0; n < iterations; ++n)
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if constexpr (kBfloat)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
      else
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
  if (sum == 123.0f) sink[threadIdx.x] = sum;
#else
  (void)sink, (void)iterations;  // m16n8k16 is as old as compute capability 8.0
#endif
}

}  // namespace

void measure_rates(const std::function<void(const std::string&, double, const std::string&)>& put) {
  const Timer timer;
  const int processors = attribute(cudaDevAttrMultiProcessorCount);
  const unsigned blocks = static_cast<unsigned>(processors) * 8;
  const Memory sink(1 << 16);
  const auto time = [&](const auto& enqueue) {
    return timer
        .stream_us(1, kSeconds,
                   [&] {
                     enqueue();
                     FNCE_BENCH_CHECK(cudaGetLastError());
                   })
        .median;
  };
  put("sm_count", processors, "");
  put("l2_bytes", attribute(cudaDevAttrL2CacheSize), "bytes");

  const unsigned large = 1u << 22, small = 1u << 16;  // rows: 1 GiB, far beyond any L2; 16 MiB, within it
  const Memory rows(size_t{large} * kRowBytes);
  FNCE_BENCH_CHECK(cudaMemset(rows.get(), 0x5A, rows.bytes()));
  const auto read = [&](unsigned count, unsigned passes) {
    const double us = time([&] {
      read_rows<<<count / kRowsPerBlock * passes, 256, 0, timer.stream()>>>(rows.as<uint4>(), sink.as<uint4>(), count);
    });
    return static_cast<double>(count) * kRowBytes * passes / us * 1e6;
  };
  put("hbm_read", read(large, 1), "bytes/s, 1 GiB");
  put("l2_read", read(small, 64), "bytes/s, 16 MiB read 64 times");

  constexpr int kIterations = 4096;
  const double per_launch = 8.0 * 256 * blocks * kIterations;
  put("ex2",
      per_launch / time([&] { exponentials<<<blocks, 256, 0, timer.stream()>>>(sink.as<float>(), kIterations); }) * 1e6,
      "ex2.approx/s");
  put("fma", per_launch / time([&] {
               multiply_adds<<<blocks, 256, 0, timer.stream()>>>(sink.as<float>(), kIterations, 0.999f);
             }) * 1e6,
      "float32 fused multiply-adds/s");
  // 8 warps a block, each 8 products an iteration of 2 * 16 * 8 * 16 operations.
  const double operations = 8.0 * 8 * 4096 * blocks * kIterations;
  if (attribute(cudaDevAttrComputeCapabilityMajor) >= 8) {
    put("mma_f16", operations / time([&] {
                     products<false><<<blocks, 256, 0, timer.stream()>>>(sink.as<float>(), kIterations);
                   }) * 1e6,
        "operations/s, mma.sync m16n8k16");
    put("mma_bf16", operations / time([&] {
                      products<true><<<blocks, 256, 0, timer.stream()>>>(sink.as<float>(), kIterations);
                    }) * 1e6,
        "operations/s, mma.sync m16n8k16");
  }

  const auto launch = [&] { nothing<<<static_cast<unsigned>(processors), 128, 0, timer.stream()>>>(); };
  const auto launches = [&] {
    for (int i = 0; i < 200; ++i) launch();
  };
  put("launch_stream", timer.stream_us(200, kSeconds, launches).median, "us per empty kernel, back to back");
  put("launch_graph", timer.graph_us(200, kSeconds, launches).median, "us per empty kernel in a graph of 200");
  put("launch_one", timer.stream_us(1, kSeconds, launch).median, "us between two events around one empty kernel");
}

}  // namespace fnce::bench::gpu
