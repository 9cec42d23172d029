// Host and device: how the formulas of this folder compile for both, and the float32 operations whose result is fixed
// to the bit. The randomness contract (docs/maths.md) is made of these operations and of integers alone.
//
// FNCE_HD functions have internal linkage and are always inlined: one header is compiled into objects of different
// instruction sets, which must not share a weak symbol. Host objects need -ffp-contract=off; fast-math breaks the
// contract.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__) || defined(__USE_FAST_MATH__)
#error "src/math needs IEEE arithmetic: compile without -ffast-math / --use_fast_math"
#endif

#if defined(__CUDACC__)
#define FNCE_HD static __host__ __device__ __forceinline__
#else
#define FNCE_HD static inline __attribute__((always_inline))
#endif

namespace fnce {

// a*b + c, rounded once.
FNCE_HD float fma_rn(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

FNCE_HD double fma_rn(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

// nvcc contracts expressions into fused operations, but never intrinsics.
FNCE_HD float mul_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

FNCE_HD float add_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

FNCE_HD float div_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

FNCE_HD float sqrt_rn(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return __builtin_sqrtf(a);
#endif
}

// a + b modulo 2^64: counts that come from outside must not be able to overflow.
FNCE_HD int64_t add_wrapping(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

FNCE_HD uint32_t float_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

FNCE_HD float bits_float(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

}  // namespace fnce
