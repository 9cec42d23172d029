// The library's Philox words against cuRAND's own: curand_init(seed, stream << 56 | index, offset), then curand4. A
// program by itself, for machines that have cuRAND's header, which compiles for the host as well.
//   gpu_curand           on the device
//   gpu_curand --host    the same draws on the CPU
// Exit code: 0, 1 (words differ), 77 (no device; 1 where FLASHNCE_REQUIRE_GPU=1).
#define QUALIFIERS static __forceinline__ __host__ __device__
#include <cuda_runtime.h>
#include <curand_kernel.h>

#include <cstdio>
#include <cstring>

#include "gpu/report.h"
#include "math/philox.h"

namespace {

constexpr unsigned kBlocks = 512, kThreads = 256, kEach = 8;

// Counts the draws of a thread that differ, with seeds, offsets and indices that use all their bits.
__host__ __device__ unsigned different(unsigned thread) {
  unsigned count = 0;
  for (unsigned i = 0; i < kEach; ++i) {
    const uint64_t mixed = (uint64_t{thread} * kEach + i + 1) * 0x9E3779B97F4A7C15u;
    const uint64_t seed = mixed, offset = (mixed >> 20) / 4 * 4, index = (mixed * 0xBF58476D1CE4E5B9u) >> (8 + i * 4);
    const uint32_t stream = 1 + thread % 3;
    curandStatePhilox4_32_10_t state;
    curand_init(seed, static_cast<unsigned long long>(stream) << 56 | index, offset, &state);
    const uint4 theirs = curand4(&state);
    const fnce::Philox4 ours = fnce::draw_block(seed, offset, static_cast<fnce::Stream>(stream), index);
    count +=
        theirs.x != ours.word[0] || theirs.y != ours.word[1] || theirs.z != ours.word[2] || theirs.w != ours.word[3];
  }
  return count;
}

__global__ void compare(unsigned* sum) { atomicAdd(sum, different(blockIdx.x * blockDim.x + threadIdx.x)); }

int verdict(unsigned count, const char* where) {
  std::printf("%s  %u of %u draws differ from cuRAND's, on the %s\n", count == 0 ? "PASS" : "FAIL", count,
              kBlocks * kThreads * kEach, where);
  return count == 0 ? 0 : 1;
}

int on_host() {
  unsigned count = 0;
  for (unsigned thread = 0; thread < kBlocks * kThreads; ++thread) count += different(thread);
  return verdict(count, "host");
}

bool good(cudaError_t code) {
  if (code != cudaSuccess) std::printf("FAIL  %s\n", cudaGetErrorString(code));
  return code == cudaSuccess;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--host") == 0) return on_host();
  if (argc > 1) return std::fprintf(stderr, "usage: gpu_curand [--host]\n"), 1;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
    return std::printf("SKIP  no device\n"), fnce::gpu::no_device_code();
  unsigned *sum = nullptr, count = 1;
  if (!good(cudaMalloc(&sum, sizeof count)) || !good(cudaMemset(sum, 0, sizeof count))) return 1;
  compare<<<kBlocks, kThreads>>>(sum);
  if (!good(cudaGetLastError()) || !good(cudaMemcpy(&count, sum, sizeof count, cudaMemcpyDeviceToHost))) return 1;
  return verdict(count, "device");
}
