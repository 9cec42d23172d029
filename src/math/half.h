// float16 and bfloat16 as bit patterns: the way to float32 is exact, the way back rounds to nearest even. Overflow
// gives infinity, a NaN stays one (quiet), and denormals are kept.
#pragma once

#include "math/hd.h"

namespace fnce {

FNCE_HD float half_to_float(uint16_t half) {
  // Exponent and mantissa move to their places, and a power of two puts the bias right: exact, for denormals too.
  const float magnitude = bits_float((half & 0x7fffu) << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x1p16f ? 0x7f800000u : 0u;
  return bits_float(float_bits(magnitude) | special | ((half & 0x8000u) << 16));
}

FNCE_HD uint16_t float_to_half(float value) {
  const uint32_t bits = float_bits(value), magnitude = bits & 0x7fffffffu;
  const uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  // Normal: the exponent is rebased, and half a unit less one is added, one more where the last bit kept is odd.
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Denormal: the addition rounds to multiples of 2^-24, the unit in the last place of 0.5.
  const uint32_t denormal = float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u;
  uint32_t result = magnitude < 0x38800000u ? denormal : normal;
  if (magnitude >= 0x47800000u) result = magnitude > 0x7f800000u ? nan : 0x7c00u;
  return static_cast<uint16_t>(result | ((bits >> 16) & 0x8000u));
}

FNCE_HD float bfloat_to_float(uint16_t bfloat) { return bits_float(uint32_t{bfloat} << 16); }

FNCE_HD uint16_t float_to_bfloat(float value) {
  const uint32_t bits = float_bits(value);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u), nan = bits | 0x400000u;
  return static_cast<uint16_t>(((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded) >> 16);
}

}  // namespace fnce
