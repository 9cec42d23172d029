// FNCE_CHECK_PERMUTATION: K entries that are all in range and all different are a bijection.
#include "kernels/contract/platform.cuh"
#include "kernels/rows/kernels.h"

namespace fnce::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) check_permutation(const __grid_constant__ CheckPermutationParams p) {
  const int64_t threads = int64_t{gridDim.x} * kThreads;
  for (int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x; j < p.k; j += threads) {
    const int32_t to = p.permutation[j];
    bool wrong = to < 0 || to >= p.k;
    if (!wrong) {
      const unsigned bit = 1u << (to % 32);
      wrong = (atomicOr(p.seen + to / 32, bit) & bit) != 0;
    }
    if (wrong) atomicOr(p.invalid, 1u);
  }
}

}  // namespace

Kernel<CheckPermutationParams> check_permutation_kernel() {
  return {check_permutation, "fnce_check_permutation", kThreads, 0};
}

}  // namespace fnce::cuda
