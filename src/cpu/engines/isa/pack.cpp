// Packing for the float32 products: column tiles, mixed on the way where equation (3) cannot be applied to scores, and
// anchors.
#include "cpu/engines/isa/tile32.h"
#include "cpu/simd/convert.h"
#include "cpu/simd/mix_row.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

using D8 = hn::CappedTag<float, kDimBlock>;
constexpr D8 d8;
constexpr int kLanes8 = HWY_MIN(kLanes, static_cast<int>(kDimBlock));

// Writes row j of a tile and collects 0 * x, which is NaN as soon as one x is not finite.
template <int32_t kType>
HWY_INLINE void pack_row(const PackJob& job, const void* row, int j, hn::Vec<D8>& check, float& tail_check) {
  float* out = static_cast<float*>(job.packed) + j * kDimBlock;
  int64_t c = 0;
  for (; c + kDimBlock <= job.d; c += kDimBlock, out += kTileStride)
    for (int u = 0; u < kDimBlock; u += kLanes8) {
      const auto x = load<kType>(d8, row, c + u);
      check = hn::MulAdd(x, hn::Zero(d8), check);
      hn::StoreU(x, d8, out + u);
    }
  for (; c < job.d; ++c) {
    const float x = load_one<kType>(row, c);
    tail_check += x * 0.0f;
    out[c % kDimBlock] = x;
  }
  for (; c % kDimBlock != 0; ++c) out[c % kDimBlock] = 0;
}

// Zeros in the place of row j.
void blank_row(const PackJob& job, int j) {
  float* out = static_cast<float*>(job.packed) + j * kDimBlock;
  for (int64_t c = 0; c < job.d_padded; c += kDimBlock, out += kTileStride)
    for (int64_t u = 0; u < kDimBlock; ++u) out[u] = 0;
}

}  // namespace

int64_t packed_bytes(int64_t d_padded) {
  return d_padded / kDimBlock * kTileStride * static_cast<int64_t>(sizeof(float));
}

bool pack_columns(const PackJob& job) {
  auto check = hn::Zero(d8);
  float tail_check = 0;
  with_type(job.type, [&](auto tag) {
    constexpr int32_t kType = decltype(tag)::kType;
    for (int j = 0; j < job.columns; ++j) {
      if (job.blank && job.blank[j])
        blank_row(job, j);
      else if (job.partners)
        pack_row<FNCE_FLOAT32>(job, mix_row<kType>(job, job.rows[j], job.partners[j]), j, check, tail_check);
      else
        pack_row<kType>(job, element_at(job.queue, job.rows[j] * job.d, kType), j, check, tail_check);
    }
  });
  HWY_ALIGN float checks[kDimBlock] = {};
  hn::Store(check, d8, checks);
  for (float x : checks) tail_check += x;
  return tail_check == 0;
}

// [rows,D] -> [d_padded][vectors * lanes]. Sixteen features of a row at a time: a cache line is read once.
void pack_anchors(const float* anchors, int64_t d, int rows, int vectors, int64_t d_padded, void* packed) {
  const int64_t width = int64_t{vectors} * kLanes;
  auto* out = static_cast<float*>(packed);
  for (int64_t first = 0; first < d_padded; first += 16) {
    const int64_t end = first + 16 < d_padded ? first + 16 : d_padded;
    for (int64_t i = 0; i < width; ++i) {
      // Too many rows side by side for the processor to see where each goes on.
      __builtin_prefetch(anchors + i * d + first + 128);
      for (int64_t c = first; c < end; ++c) out[c * width + i] = c < d && i < rows ? anchors[i * d + c] : 0.0f;
    }
  }
}

}  // namespace fnce::cpu::FNCE_ISA
