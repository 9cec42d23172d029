// Anchors as the products take them: rounded to their operand's precision and packed for the matrix units, and the
// thresholds of the ranks. What prep exports as float32 gives the same packed values again (fnce_partial).
#pragma once
#include "kernels/rows/elements.cuh"
#include "kernels/rows/reduce.cuh"
#include "math/lse.h"
#include "math/stats.h"

namespace fnce::cuda {

// a = (a * down) * up, powers of two.
struct AnchorScale {
  float down, up;
};

// 2^exponent, a normal number.
FNCE_DEVICE float power_of_two(int exponent) { return bits_float(static_cast<uint32_t>(exponent + 127) << 23); }

FNCE_DEVICE bool is_half(Operand operand) {
  return operand == Operand::kHalf || operand == Operand::kHalfSplit || operand == Operand::kHalfFast;
}

// The scale follows from the largest magnitude of a row, which comes to lie in [2^13, 2^14) as float16. That magnitude
// is rounded first, so that a row that has been rounded with this scale gets it again.
FNCE_DEVICE AnchorScale anchor_scale(Operand operand, float largest) {
  if (!is_half(operand) || !(largest > 0) || !is_finite(largest)) return {1.0f, 1.0f};
  const uint32_t bits = float_bits(largest), rounded = bits + 0xfffu + ((bits >> 13) & 1u);
  int exponent = static_cast<int>(rounded >> 23) - 127 - kAnchorExponent;
  // Both powers stay normal numbers, and no finite value is scaled out of float16.
  exponent = exponent < -100 ? -100 : exponent;
  exponent = exponent > 126 - kAnchorExponent + 1 ? 126 - kAnchorExponent + 1 : exponent;
  return {power_of_two(-exponent), power_of_two(exponent)};
}

// The value that products are made of.
FNCE_DEVICE float rounded_anchor(Operand operand, const AnchorScale& scale, float a) {
  if (operand == Operand::kBfloat) return bfloat_to_float(float_to_bfloat(a));
  if (operand == Operand::kHalf || operand == Operand::kHalfFast)
    return half_to_float(float_to_half(a * scale.down)) * scale.up;
  return a;
}

// A value of the key that ranks compare with: as the queue would hold it, and as products would take it from there.
FNCE_DEVICE float rank_key(Operand operand, int32_t queue_type, float k) {
  if (operand != Operand::kHalfFast) return rounded_element(k, queue_type);
  // Larger ones are multiplied by the plain kernel.
  if (!(abs_of(k) <= kQueueMost)) return k;
  return half_to_float(float_to_half(k * power_of_two(kQueueExponent))) * power_of_two(-kQueueExponent);
}

// Writes row `row` from its values a(c), already rounded. All threads of the block take part.
template <class Anchor>
FNCE_DEVICE void pack_anchor(const PackedAnchors& packed, Operand operand, const AnchorScale& scale, int64_t row,
                             int64_t d, Anchor&& a) {
  if (!packed.values) return;
  uint16_t* high = packed.values + row * packed.d_padded;
  uint16_t* low = high + packed.rows * packed.d_padded;
  for (int64_t c = threadIdx.x; c < packed.d_padded; c += kRowThreads) {
    const float x = c < d ? a(c) * scale.down : 0.0f;
    high[c] = operand == Operand::kBfloat ? float_to_bfloat(x) : float_to_half(x);
    if (operand == Operand::kHalfSplit) low[c] = float_to_half(x - half_to_float(high[c]));
  }
  const bool scales_queue = operand == Operand::kHalfSplit || operand == Operand::kHalfFast;
  if (threadIdx.x == 0) packed.scale[row] = scale.up * (scales_queue ? power_of_two(-kQueueExponent) : 1.0f);
}

// Writes zeros to the rows beyond N that fall to the block of row `row`.
FNCE_DEVICE void pack_padding(const PackedAnchors& packed, Operand operand, int64_t row, int64_t n) {
  if (!packed.values) return;
  for (int64_t pad = n + row; pad < packed.rows; pad += n)
    pack_anchor(packed, operand, {1.0f, 1.0f}, pad, 0, [](int64_t) { return 0.0f; });
}

FNCE_DEVICE bool wants_thresholds(const Thresholds& thresholds) {
  return thresholds.upper[0] || thresholds.upper[1] || thresholds.limits[0] || thresholds.limits[1];
}

// One thread calls this.
FNCE_DEVICE void write_thresholds(const Thresholds& thresholds, int set, int64_t row, float anchor_norm, float pos) {
  if (thresholds.limits[set]) thresholds.limits[set][row] = pos + thresholds.margin;
  if (!thresholds.upper[set]) return;
  const float tie = tie_tolerance(anchor_norm, pos);
  thresholds.upper[set][row] = pos + tie;
  thresholds.lower[set][row] = pos - tie;
}

}  // namespace fnce::cuda
