// Element types in memory, float32 in registers: loads that convert exactly, stores that round to nearest even. Vector
// forms of src/math/half.h, bit-equal to it.
#pragma once
#include "core/types.h"
#include "cpu/simd/simd.h"
#include "math/half.h"

// Without instructions for float16, Highway truncates where it should round, and loses denormals: there the scalar
// formulas serve.
#if defined(__F16C__) || HWY_ARCH_ARM_A64
#define FNCE_PORTABLE_HALF 0
#else
#define FNCE_PORTABLE_HALF 1
#endif

namespace fnce::cpu::FNCE_ISA {
namespace {

// A type known when compiling, as the argument of a generic lambda.
template <int32_t kValue>
struct TypeTag {
  static constexpr int32_t kType = kValue;
};

// body(TypeTag<type>).
template <class Body>
HWY_INLINE auto with_type(int32_t type, Body&& body) {
  switch (type) {
    case FNCE_FLOAT16: return body(TypeTag<FNCE_FLOAT16>());
    case FNCE_BFLOAT16: return body(TypeTag<FNCE_BFLOAT16>());
    default: return body(TypeTag<FNCE_FLOAT32>());
  }
}

template <int32_t kType>
HWY_INLINE float load_one(const void* array, int64_t i) {
  if constexpr (kType == FNCE_FLOAT32) {
    return static_cast<const float*>(array)[i];
  } else {
    const uint16_t bits = static_cast<const uint16_t*>(array)[i];
    return kType == FNCE_FLOAT16 ? half_to_float(bits) : bfloat_to_float(bits);
  }
}

template <int32_t kType>
HWY_INLINE void store_one(float x, void* array, int64_t i) {
  if constexpr (kType == FNCE_FLOAT32) {
    static_cast<float*>(array)[i] = x;
  } else {
    static_cast<uint16_t*>(array)[i] = kType == FNCE_FLOAT16 ? float_to_half(x) : float_to_bfloat(x);
  }
}

// Elements i .. i + lanes of `d` - 1, unaligned.
template <int32_t kType, class D>
HWY_INLINE hn::Vec<D> load([[maybe_unused]] D d, const void* array, int64_t i) {
  if constexpr (kType == FNCE_FLOAT32) {
    return hn::LoadU(d, static_cast<const float*>(array) + i);
  } else if constexpr (kType == FNCE_BFLOAT16) {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> d32;
    const auto bits = hn::LoadU(d16, static_cast<const uint16_t*>(array) + i);
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  } else {
#if FNCE_PORTABLE_HALF
    HWY_ALIGN float x[HWY_MAX_BYTES / sizeof(float)];
    for (size_t lane = 0; lane < hn::Lanes(d); ++lane) x[lane] = load_one<kType>(array, i + static_cast<int64_t>(lane));
    return hn::Load(d, x);
#else
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, static_cast<const hwy::float16_t*>(array) + i));
#endif
  }
}

// x rounded to bfloat16, as the upper halves of 32 bits.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, D>> round_to_bfloat(D, hn::Vec<D> x) {
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::BitCast(d32, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(d32, 0x7fff)), odd);
  const auto nan = hn::Or(bits, hn::Set(d32, 0x400000));
  return hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(x)), nan, rounded);
}

template <int32_t kType, class D>
HWY_INLINE void store([[maybe_unused]] D d, hn::Vec<D> x, void* array, int64_t i) {
  if constexpr (kType == FNCE_FLOAT32) {
    hn::StoreU(x, d, static_cast<float*>(array) + i);
  } else if constexpr (kType == FNCE_BFLOAT16) {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<int32_t, D> di32;
    const auto upper = hn::BitCast(di32, hn::ShiftRight<16>(round_to_bfloat(d, x)));
    hn::StoreU(hn::DemoteTo(d16, upper), d16, static_cast<uint16_t*>(array) + i);
  } else {
#if FNCE_PORTABLE_HALF
    HWY_ALIGN float values[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(x, d, values);
    for (size_t lane = 0; lane < hn::Lanes(d); ++lane)
      store_one<kType>(values[lane], array, i + static_cast<int64_t>(lane));
#else
    const hn::Rebind<hwy::float16_t, D> d16;
    hn::StoreU(hn::DemoteTo(d16, x), d16, static_cast<hwy::float16_t*>(array) + i);
#endif
  }
}

// x as an element of the type holds it.
template <int32_t kType>
HWY_INLINE float rounded_one(float x) {
  if constexpr (kType == FNCE_FLOAT16) return half_to_float(float_to_half(x));
  if constexpr (kType == FNCE_BFLOAT16) return bfloat_to_float(float_to_bfloat(x));
  return x;
}

template <int32_t kType, class D>
HWY_INLINE hn::Vec<D> rounded([[maybe_unused]] D d, hn::Vec<D> x) {
  if constexpr (kType == FNCE_FLOAT32) {
    return x;
  } else if constexpr (kType == FNCE_BFLOAT16) {
    return hn::BitCast(d, hn::And(round_to_bfloat(d, x), hn::Set(hn::Rebind<uint32_t, D>(), 0xffff0000u)));
  } else {
    HWY_ALIGN uint16_t halves[HWY_MAX_BYTES / sizeof(float)];
    store<kType>(d, x, halves, 0);
    return load<kType>(d, halves, 0);
  }
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
