// The symmetric Beta distribution in closed form, equation (11) of docs/maths.md, for every alpha > 0:
//   X = 1/2 + sign(x) * 1/2 * sqrt(y / (1 + y)),   y = (U^(-1/alpha) - 1) * sin(pi x)^2,   x uniform in (-1/2, 1/2).
// (Bailey's polar form of Student's t, carried over to Beta.) The bits are fixed, because there are only integer
// operations, fused multiply-adds and correctly rounded + * / sqrt. The result is never NaN, always lies in [0, 1] and
// is within 1.5e-7 of the exact value.
#pragma once

#include "math/hd.h"

namespace fnce {

// log2(u) for u in [2^-24, 1): never 0.
FNCE_HD float log2_unit(float u) {
  // The mantissa is taken in [sqrt(1/2), sqrt(2)), where the polynomial is centred.
  const uint32_t shifted = float_bits(u) - 0x3F3504F3u;
  const int32_t exponent = static_cast<int32_t>(shifted) >> 23;
  const float f = add_rn(bits_float((shifted & 0x7FFFFFu) + 0x3F3504F3u), -1.0f);
  float p = 0.12583564221858978f;
  p = fma_rn(p, f, -0.20726905763149261f);
  p = fma_rn(p, f, 0.21571579575538635f);
  p = fma_rn(p, f, -0.23894493281841278f);
  p = fma_rn(p, f, 0.28791624307632446f);
  p = fma_rn(p, f, -0.3607036769390106f);
  p = fma_rn(p, f, 0.48091062903404236f);
  p = fma_rn(p, f, -0.7213473320007324f);
  p = fma_rn(p, f, 1.4426950216293335f);
  return fma_rn(p, f, static_cast<float>(exponent));
}

// 2^t - 1 for 0 <= t <= 100, without cancellation near 0.
FNCE_HD float exp2_minus_one(float t) {
  // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even.
  const float r = add_rn(add_rn(t, 12582912.0f), -12582912.0f);
  const float f = add_rn(t, -r);
  float p = 0.00015403538418468088f;
  p = fma_rn(p, f, 0.0013390735257416964f);
  p = fma_rn(p, f, 0.009618237614631653f);
  p = fma_rn(p, f, 0.05550357326865196f);
  p = fma_rn(p, f, 0.24022649228572845f);
  p = fma_rn(p, f, 0.6931471824645996f);
  const float scale = bits_float(static_cast<uint32_t>(static_cast<int32_t>(r) + 127) << 23);
  return fma_rn(scale, mul_rn(p, f), add_rn(scale, -1.0f));
}

// sin(pi x) for |x| < 1/2.
FNCE_HD float sin_pi(float x) {
  const float z = mul_rn(x, x);
  float p = -0.00702216662466526f;
  p = fma_rn(p, z, 0.08204647898674011f);
  p = fma_rn(p, z, -0.5992513298988342f);
  p = fma_rn(p, z, 2.5501632690429688f);
  p = fma_rn(p, z, -5.167712688446045f);
  p = fma_rn(p, z, 3.1415927410125732f);
  return mul_rn(p, x);
}

// u in (0, 1), x in (-1/2, 1/2), inv_alpha = 1/alpha >= 0 (infinity is allowed).
FNCE_HD float beta_from_uniforms(float u, float x, float inv_alpha) {
  const float product = mul_rn(-log2_unit(u), inv_alpha);
  const float t = product < 100.0f ? product : 100.0f;
  const float s = sin_pi(x);
  const float y = mul_rn(exp2_minus_one(t), mul_rn(s, s));
  const float h = mul_rn(0.5f, sqrt_rn(div_rn(y, add_rn(1.0f, y))));
  return add_rn(0.5f, x < 0.0f ? -h : h);
}

// The middle of one of 2^23 cells of (0, 1), by the upper bits of a word. The odd integer is below 2^24: exact.
FNCE_HD float uniform_23(uint32_t word) {
  return mul_rn(static_cast<float>(static_cast<int32_t>((word >> 9) * 2 + 1)), 5.9604644775390625e-8f);
}

// The middle of one of 2^16 cells of (0, 1).
FNCE_HD float uniform_16(uint32_t half) {
  return mul_rn(static_cast<float>(static_cast<int32_t>(half * 2 + 1)), 7.62939453125e-6f);
}

// One draw from two words.
FNCE_HD float beta_symmetric(uint32_t r0, uint32_t r1, float inv_alpha) {
  return beta_from_uniforms(uniform_23(r0), add_rn(uniform_23(r1), -0.5f), inv_alpha);
}

// One draw from one word: two 16-bit uniforms, the upper half first.
FNCE_HD float beta_symmetric_16(uint32_t word, float inv_alpha) {
  return beta_from_uniforms(uniform_16(word >> 16), add_rn(uniform_16(word & 0xFFFFu), -0.5f), inv_alpha);
}

}  // namespace fnce
