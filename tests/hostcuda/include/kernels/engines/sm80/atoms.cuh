// kernels/engines/sm80/atoms.cuh for the harness: a model of every instruction. Its comments say what each of them
// does.
#pragma once
#include "hostcuda/atoms_model.h"
#include "kernels/pass/atoms.cuh"
#include "math/half.h"

namespace fnce::cuda::sm80 {

using hostcuda::cp_async_16;
using hostcuda::cp_async_commit;
using hostcuda::ldmatrix_x4;
using hostcuda::ldmatrix_x4_trans;

FNCE_DEVICE int thread_read_again() { return static_cast<int>(threadIdx.x); }
FNCE_DEVICE uint2 block_read_again() { return make_uint2(blockIdx.x, blockIdx.y); }

template <int kLeave>
FNCE_DEVICE void cp_async_wait() {
  hostcuda::cp_async_wait(kLeave);
}

FNCE_DEVICE void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  hostcuda::mma_m16n8k16_f16(d, a, b0, b1);
}

FNCE_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  hostcuda::mma_m16n8k16_bf16(d, a, b0, b1);
}

FNCE_DEVICE uint32_t pack_f16(float low, float high) {
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}

FNCE_DEVICE uint32_t pack_bf16(float low, float high) {
  return float_to_bfloat(low) | static_cast<uint32_t>(float_to_bfloat(high)) << 16;
}

FNCE_DEVICE float low_f16(uint32_t packed) { return half_to_float(static_cast<uint16_t>(packed)); }
FNCE_DEVICE float high_f16(uint32_t packed) { return half_to_float(static_cast<uint16_t>(packed >> 16)); }

}  // namespace fnce::cuda::sm80
