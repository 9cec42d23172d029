// The online softmax of one row, equation (7). References and exponents are in base 2; scores are inner products times
// scale = log2(e) / temperature.
#pragma once
#include "kernels/pass/atoms.cuh"
#include "math/lse.h"

namespace fnce::cuda {

// 2^(score - reference), the product rounded by itself: fused, a score of 1e8 would miss its own maximum by more than
// an exponential can hold.
FNCE_DEVICE float weight(float raw, float scale, float reference) {
  return exp2_approx(add_rn(mul_rn(raw, scale), -reference));
}

// The reference of a row whose largest score is `top`. It is set `bias` below that, and raised only when it is exceeded
// by more than `lazy` beyond the bias.
FNCE_DEVICE float raised_reference(float reference, float top, float lazy, float bias) {
  return top - reference > lazy + bias ? top - bias : reference;
}

// Two log-sum-exps in base 2 as one.
FNCE_DEVICE LogSum<float> merge_base2(const LogSum<float>& a, const LogSum<float>& b) {
  const float m = fmaxf(a.m, b.m);
  return {m, a.l * exp2_approx(a.m - m) + b.l * exp2_approx(b.m - m)};
}

}  // namespace fnce::cuda
