// Elements in memory, float32 in registers: FNCE_FLOAT32 | FNCE_FLOAT16 | FNCE_BFLOAT16, known as the kernel runs.
#pragma once
#include "kernels/contract/platform.cuh"
#include "math/half.h"
#include "math/lse.h"

namespace fnce::cuda {

FNCE_DEVICE float nan_float() { return bits_float(0x7fc00000u); }
FNCE_DEVICE float infinity_float() { return bits_float(0x7f800000u); }

FNCE_DEVICE float load_element(const void* array, int64_t i, int32_t type) {
  if (type == FNCE_FLOAT32) return static_cast<const float*>(array)[i];
  const uint16_t bits = static_cast<const uint16_t*>(array)[i];
  return type == FNCE_FLOAT16 ? half_to_float(bits) : bfloat_to_float(bits);
}

FNCE_DEVICE void store_element(float x, void* array, int64_t i, int32_t type) {
  if (type == FNCE_FLOAT32)
    static_cast<float*>(array)[i] = x;
  else
    static_cast<uint16_t*>(array)[i] = type == FNCE_FLOAT16 ? float_to_half(x) : float_to_bfloat(x);
}

// x as an element of the type holds it.
FNCE_DEVICE float rounded_element(float x, int32_t type) {
  if (type == FNCE_FLOAT16) return half_to_float(float_to_half(x));
  return type == FNCE_BFLOAT16 ? bfloat_to_float(float_to_bfloat(x)) : x;
}

// Four neighbouring elements.
struct Four {
  float value[4];
};
struct alignas(16) Words {
  uint32_t word[4];
};
struct alignas(8) Halves {
  uint16_t half[4];
};

// True if groups of four elements of all rows of an array can be copied at once.
FNCE_DEVICE bool is_wide(const void* array, int64_t stride, int32_t type) {
  return stride % 4 == 0 && reinterpret_cast<uintptr_t>(array) % (type == FNCE_FLOAT32 ? 16 : 8) == 0;
}

// Loads elements i .. i + count - 1, the others are 0. `wide` says that the array is_wide and i a multiple of 4.
FNCE_DEVICE Four load_four(const void* array, int64_t i, int count, int32_t type, bool wide) {
  Four x = {{0, 0, 0, 0}};
  if (wide && count >= 4) {
    if (type == FNCE_FLOAT32) {
      const Words words = *reinterpret_cast<const Words*>(static_cast<const float*>(array) + i);
      FNCE_UNROLL for (int u = 0; u < 4; ++u) x.value[u] = bits_float(words.word[u]);
    } else {
      const Halves halves = *reinterpret_cast<const Halves*>(static_cast<const uint16_t*>(array) + i);
      FNCE_UNROLL for (int u = 0; u < 4; ++u) x.value[u] =
          type == FNCE_FLOAT16 ? half_to_float(halves.half[u]) : bfloat_to_float(halves.half[u]);
    }
    return x;
  }
  FNCE_UNROLL for (int u = 0; u < 4; ++u) if (u < count) x.value[u] = load_element(array, i + u, type);
  return x;
}

FNCE_DEVICE void store_four(const Four& x, void* array, int64_t i, int count, int32_t type, bool wide) {
  if (wide && count >= 4) {
    if (type == FNCE_FLOAT32) {
      Words words;
      FNCE_UNROLL for (int u = 0; u < 4; ++u) words.word[u] = float_bits(x.value[u]);
      *reinterpret_cast<Words*>(static_cast<float*>(array) + i) = words;
    } else {
      Halves halves;
      FNCE_UNROLL for (int u = 0; u < 4; ++u) halves.half[u] =
          type == FNCE_FLOAT16 ? float_to_half(x.value[u]) : float_to_bfloat(x.value[u]);
      *reinterpret_cast<Halves*>(static_cast<uint16_t*>(array) + i) = halves;
    }
    return;
  }
  FNCE_UNROLL for (int u = 0; u < 4; ++u) if (u < count) store_element(x.value[u], array, i + u, type);
}

}  // namespace fnce::cuda
