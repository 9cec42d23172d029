// Vector vocabulary of one instruction set: Highway's static dispatch for the flags this object is compiled with.
// Everything has internal linkage, so that objects of different instruction sets share no symbol.
#pragma once
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/tiling.h"

#define FNCE_UNROLL _Pragma("GCC unroll 16")

namespace fnce::cpu::FNCE_ISA {

// Defined in the files of this folder, gathered by table.cpp.
void sigma_table(const Feistel& f, int32_t first, uint32_t begin, uint32_t end, int32_t* out);
void lambda_rows(const LambdaDraw& draw, int64_t first, int64_t count, float* out);
void lambda_dimensions(const LambdaDraw& draw, int64_t d, float* out);
void lambda_elements(const LambdaDraw& draw, int64_t row, int64_t d, float* out);
int64_t packed_bytes(int64_t d_padded);
bool pack_columns(const PackJob& job);
void pack_anchors(const float* anchors, int64_t d, int rows, int vectors, int64_t d_padded, void* packed);
void run_tile(const TileJob& job);
void prepare_row(const RowInput& input, PreparedRow& state);
void row_gradient(const RowInput& input, const PreparedRow& state, RowGradient& gradient);
void merge_panel(const MergeJob& job);
float norm(const void* x, int32_t type, int64_t d);
float normalize_row(const RowInput& input, const void* x, float* out);
void feature_gradient(const RowInput& input, float norm, const float* y, float* g, void* out, int32_t out_type);
void scale_row(const void* x, int32_t type, float factor, int64_t d, void* out, int32_t out_type);
float rounded_dot(const float* x, bool round_x, const float* y, int32_t type, int64_t d);

namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using V = hn::Vec<DF>;
[[maybe_unused]] constexpr DF df;
[[maybe_unused]] constexpr DI di;
constexpr int kLanes = HWY_LANES(float);
constexpr float kMinExponent = -126.0f;  // below, 2^x is not a normal number

HWY_INLINE V constant(float x) { return hn::Set(df, x); }

// lambda x + (1 - lambda) y: mix of math/mixing.h, in vectors.
[[maybe_unused]] HWY_INLINE V mix_lanes(V lambda, V x, V y) {
  return hn::MulAdd(lambda, x, hn::Mul(hn::Sub(constant(1.0f), lambda), y));
}

// Rows of vectors to memory, one after the other.
template <int MR, int NV>
HWY_INLINE void store(const V (&x)[MR][NV], float* out) {
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v)
      hn::Store(x[t][v], df, out + (t * NV + v) * kLanes);
}

// 2^x for x in [-126, 127): error below 2e-7 of the result (degree 5 minimax on [-1/2, 1/2]).
[[maybe_unused]] HWY_INLINE V exp2_in_range(V x) {
  const V magic = constant(12582912.f);  // 1.5 * 2^23 leaves round(x) in the low bits of the mantissa
  const V t = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(t, magic));
  V p = hn::MulAdd(constant(0x1.5c08e6p-10f), f, constant(0x1.3d0c54p-7f));
  p = hn::MulAdd(p, f, constant(0x1.c6b6e4p-5f));
  p = hn::MulAdd(p, f, constant(0x1.ebf918p-3f));
  p = hn::MulAdd(p, f, constant(0x1.62e428p-1f));
  p = hn::MulAdd(p, f, constant(1.0f));
  return hn::BitCast(df, hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, t)), hn::BitCast(di, p)));
}

// 2^x for x <= 127, at least 2^-126. The order of Max matters: x86 gives the second operand where one is NaN, and a NaN
// must come out as one.
[[maybe_unused]] HWY_INLINE V exp2_clamped(V x) { return exp2_in_range(hn::Max(constant(kMinExponent), x)); }

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
