// The instruction that all families on matrix units have in common: the exponential, as inline PTX.
// tests/hostcuda/include has a file of this path with its model.
#pragma once
#include "kernels/contract/platform.cuh"

namespace fnce::cuda {

// 2^x within 2 units in the last place; results below 2^-126 are 0. NaN stays NaN.
FNCE_DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fnce::cuda
