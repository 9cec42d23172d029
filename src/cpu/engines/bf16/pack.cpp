// Packing for the bfloat16 products: rows as they are or mixed and rounded, then pairs of columns.
#include <cstring>

#include "cpu/engines/bf16/products.h"
#include "cpu/engines/bf16/tile16.h"
#include "cpu/simd/convert.h"
#include "cpu/simd/mix_row.h"

namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS {
namespace {

using D16 = hn::ScalableTag<uint16_t>;
constexpr D16 d16;
constexpr int64_t kLanes16 = HWY_LANES(uint16_t);

// Copies a row, with zeros up to d_padded; false if a value is not finite: all bits of its exponent are set.
HWY_INLINE bool copy_row(const uint16_t* row, int64_t d, int64_t d_padded, uint16_t* out) {
  const auto exponent = hn::Set(d16, 0x7f80);
  auto largest = hn::Zero(d16);
  int64_t c = 0;
  for (; c + kLanes16 <= d; c += kLanes16) {
    const auto x = hn::LoadU(d16, row + c);
    largest = hn::Max(largest, hn::And(x, exponent));
    hn::StoreU(x, d16, out + c);
  }
  bool finite = hn::AllTrue(d16, hn::Lt(largest, exponent));
  for (; c < d; ++c) {
    finite = finite && (row[c] & 0x7f80) != 0x7f80;
    out[c] = row[c];
  }
  for (; c < d_padded; ++c) out[c] = 0;
  return finite;
}

// A mixed row, rounded; in float32 it may be finite and overflow here, which counts as not finite.
bool mix_and_round(const PackJob& job, int64_t row, int64_t partner, uint16_t* out) {
  const float* mixed = mix_row<FNCE_BFLOAT16>(job, row, partner);
  scale_row(mixed, FNCE_FLOAT32, 1.0f, job.d, out, FNCE_BFLOAT16);
  return copy_row(out, job.d, job.d_padded, out);
}

// Words of two columns, feature by feature.
HWY_INLINE void interleave(const uint16_t* even, const uint16_t* odd, int64_t d_padded, uint32_t* out) {
  const hn::ScalableTag<uint32_t> d32;
  const hn::Rebind<uint16_t, hn::ScalableTag<uint32_t>> half;
  for (int64_t c = 0; c < d_padded; c += kLanes) {
    const auto low = hn::PromoteTo(d32, hn::LoadU(half, even + c)), high = hn::PromoteTo(d32, hn::LoadU(half, odd + c));
    hn::StoreU(hn::Or(low, hn::ShiftLeft<16>(high)), d32, out + c);
  }
}

}  // namespace

int64_t packed_bytes(int64_t d_padded) {
  const int64_t pairs = kColumnTile / 2 * pair_stride(d_padded), transposed = d_padded * kFeatureStride;
  return kColumnTile * row_stride(d_padded) * 2 + (pairs > transposed ? pairs : transposed) * 4;
}

bool pack_columns(const PackJob& job) {
  const Tile16 tile = tile_at(job.packed, job.d_padded);
  const int64_t stride = row_stride(job.d_padded);
  bool finite = true;
  for (int j = 0; j < job.columns; ++j) {
    uint16_t* out = tile.rows + j * stride;
    if (job.blank && job.blank[j]) {
      std::memset(out, 0, static_cast<size_t>(job.d_padded) * sizeof *out);
      continue;
    }
    const bool row_finite = job.partners ? mix_and_round(job, job.rows[j], job.partners[j], out)
                                         : copy_row(static_cast<const uint16_t*>(job.queue) + job.rows[j] * job.d,
                                                    job.d, job.d_padded, out);
    finite = finite && row_finite;
  }
  pair_columns(tile, job.columns, job.d_padded, interleave);
  return finite;
}

// [rows,D] -> words of two features, [d_padded / 2][vectors * lanes]. A row's cache line is read once.
void pack_anchors(const float* anchors, int64_t d, int rows, int vectors, int64_t d_padded, void* packed) {
  const int64_t width = int64_t{vectors} * kLanes;
  auto* out = static_cast<uint32_t*>(packed);
  for (int64_t first = 0; first < d_padded; first += kDimBlock) {
    const int64_t count = d - first < kDimBlock ? d - first : kDimBlock;
    for (int64_t i = 0; i < width; ++i) {
      // Too many rows side by side for the processor to see where each goes on.
      for (int64_t line = 0; line < kDimBlock; line += 16) __builtin_prefetch(anchors + i * d + first + 128 + line);
      alignas(64) uint32_t words[kDimBlock / 2] = {};
      if (i < rows && count > 0) scale_row(anchors + i * d + first, FNCE_FLOAT32, 1.0f, count, words, FNCE_BFLOAT16);
      for (int64_t w = 0; w < kDimBlock / 2; ++w) out[(first / 2 + w) * width + i] = words[w];
    }
  }
}

}  // namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS
