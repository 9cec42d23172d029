#include "cuda/rate_kernels.h"

#include <cuda_runtime.h>

#include <cstdint>

namespace fnce::bench::gpu::rate {
namespace {

__global__ void nothing_kernel() {}

// kRowsPerBlock rows a block, each by 16 threads, 8 in flight per thread; the grid wraps around `rows` as often as it
// is longer.
__global__ void __launch_bounds__(kThreads) read_rows_kernel(const uint4* from, uint4* sink, unsigned rows) {
  const unsigned first = blockIdx.x * kRowsPerBlock % rows + threadIdx.x / 16, piece = threadIdx.x % 16;
  uint4 v[8];
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) v[i] = __ldcg(from + (static_cast<size_t>(first) + i * 16) * 16 + piece);
  unsigned folded = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) folded ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  if (folded == 0x9E3779B9u) sink[threadIdx.x] = v[0];  // never true for the data used: keeps the loads
}

// kChains independent chains a thread; x -> 2^-x converges.
__global__ void __launch_bounds__(kThreads) exponentials_kernel(float* sink, int iterations) {
  float v[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) v[i] = static_cast<float>(threadIdx.x + i) * 0.001f;
#pragma unroll 4
  for (int n = 0; n < iterations; ++n)
#pragma unroll
    for (int i = 0; i < kChains; ++i) asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(v[i]) : "f"(-v[i]));
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += v[i];
  if (sum == 123.0f) sink[threadIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) multiply_adds_kernel(float* sink, int iterations, float factor) {
  float v[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) v[i] = static_cast<float>(threadIdx.x + i);
#pragma unroll 8
  for (int n = 0; n < iterations; ++n)
#pragma unroll
    for (int i = 0; i < kChains; ++i) v[i] = __fmaf_rn(v[i], factor, 0.5f);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum += v[i];
  if (sum == 123.0f) sink[threadIdx.x] = sum;
}

// kChains independent accumulators a warp, operands in registers that look like data: random bits draw the power that
// data does.
template <bool kBfloat>
__global__ void __launch_bounds__(kThreads) products_kernel(float* sink, int iterations) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float d[kChains][4] = {};
  uint32_t a[4], b[2];
  const uint32_t one = kBfloat ? 0x3F803F80u : 0x3C003C00u, varied = kBfloat ? 0x807F807Fu : 0x83FF83FFu;
  uint32_t state = threadIdx.x * 2654435761u + blockIdx.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = one | ((state = state * 1664525u + 1013904223u) & varied);
#pragma unroll
  for (int i = 0; i < 2; ++i) b[i] = one | ((state = state * 1664525u + 1013904223u) & varied);
  for (int n = 0; n < iterations; ++n)
#pragma unroll
    for (int i = 0; i < kChains; ++i) {
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
  for (int i = 0; i < kChains; ++i) sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
  if (sum == 123.0f) sink[threadIdx.x] = sum;
#else
  (void)sink, (void)iterations;  // m16n8k16 is as old as compute capability 8.0
#endif
}

}  // namespace

void nothing(unsigned blocks, cudaStream_t stream) { nothing_kernel<<<blocks, 128, 0, stream>>>(); }

void read_rows(const void* from, void* sink, unsigned rows, unsigned passes, cudaStream_t stream) {
  read_rows_kernel<<<rows / kRowsPerBlock * passes, kThreads, 0, stream>>>(static_cast<const uint4*>(from),
                                                                           static_cast<uint4*>(sink), rows);
}

void exponentials(unsigned blocks, float* sink, cudaStream_t stream) {
  exponentials_kernel<<<blocks, kThreads, 0, stream>>>(sink, kIterations);
}

void multiply_adds(unsigned blocks, float* sink, cudaStream_t stream) {
  multiply_adds_kernel<<<blocks, kThreads, 0, stream>>>(sink, kIterations, 0.999f);
}

void products(unsigned blocks, bool bfloat16, float* sink, cudaStream_t stream) {
  if (bfloat16)
    products_kernel<true><<<blocks, kThreads, 0, stream>>>(sink, kIterations);
  else
    products_kernel<false><<<blocks, kThreads, 0, stream>>>(sink, kIterations);
}

}  // namespace fnce::bench::gpu::rate
