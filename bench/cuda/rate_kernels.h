// Kernels that do one thing only, on all multiprocessors, long enough that a launch does not count. Errors of a launch
// are left to cudaGetLastError.
#pragma once
#include <cuda_runtime_api.h>

namespace fnce::bench::gpu::rate {

constexpr unsigned kThreads = 256, kRowBytes = 256, kRowsPerBlock = 128;
constexpr int kIterations = 4096, kChains = 8;  // of the arithmetic ones: independent chains of a thread, or of a warp

void nothing(unsigned blocks, cudaStream_t stream);

// Reads `rows` rows of kRowBytes, `passes` times one after the other. `from`: rows, none of them zero; `sink`: 4 KiB.
void read_rows(const void* from, void* sink, unsigned rows, unsigned passes, cudaStream_t stream);

// kChains * kIterations in each of kThreads threads a block: ex2.approx and float32 multiply-add. `sink`: 1 KiB.
void exponentials(unsigned blocks, float* sink, cudaStream_t stream);
void multiply_adds(unsigned blocks, float* sink, cudaStream_t stream);

// kChains * kIterations products m16n8k16 in each warp; nothing before compute capability 8.0.
void products(unsigned blocks, bool bfloat16, float* sink, cudaStream_t stream);

}  // namespace fnce::bench::gpu::rate
