// The library's Philox words against cuRAND's own: curand_init(seed, stream << 56 | index, offset), then curand4. A program by
// itself, for machines that have cuRAND's header. Exit code: 0, 1 (words differ), 77 (no device).
#include <cuda_runtime.h>
#include <curand_kernel.h>

#include <cstdio>

#include "math/philox.h"

namespace {

constexpr unsigned kBlocks = 512, kThreads = 256, kEach = 8;

// Seeds, offsets and indices that use all their bits.
__global__ void compare(unsigned* different) {
  const unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
  for (unsigned i = 0; i < kEach; ++i) {
    const uint64_t mixed = (uint64_t{t} * kEach + i + 1) * 0x9E3779B97F4A7C15u;
    const uint64_t seed = mixed, offset = (mixed >> 20) / 4 * 4, index = (mixed * 0xBF58476D1CE4E5B9u) >> (8 + i * 4);
    const uint32_t stream = 1 + t % 3;
    curandStatePhilox4_32_10_t state;
    curand_init(seed, static_cast<unsigned long long>(stream) << 56 | index, offset, &state);
    const uint4 theirs = curand4(&state);
    const fnce::Philox4 ours = fnce::draw_block(seed, offset, static_cast<fnce::Stream>(stream), index);
    if (theirs.x != ours.word[0] || theirs.y != ours.word[1] || theirs.z != ours.word[2] || theirs.w != ours.word[3])
      atomicAdd(different, 1u);
  }
}

bool good(cudaError_t code) {
  if (code != cudaSuccess) std::printf("FAIL  %s\n", cudaGetErrorString(code));
  return code == cudaSuccess;
}

}  // namespace

int main() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return std::printf("SKIP  no device\n"), 77;
  unsigned *device = nullptr, different = 1;
  if (!good(cudaMalloc(&device, sizeof different)) || !good(cudaMemset(device, 0, sizeof different))) return 1;
  compare<<<kBlocks, kThreads>>>(device);
  if (!good(cudaGetLastError()) || !good(cudaMemcpy(&different, device, sizeof different, cudaMemcpyDeviceToHost)))
    return 1;
  std::printf("%u of %u draws differ from cuRAND's\n", different, kBlocks * kThreads * kEach);
  return different == 0 ? 0 : 1;
}
