// The two matrix products of a key tile: scores S = a Z^T and sums O += P Z, from one and the same tile in shared memory.
#pragma once
#include "sm80/atoms.cuh"
#include "sm80/config.cuh"

namespace fnce::cuda::sm80 {

// Raw scores of a warp: [row tile][group of 16 keys][half of the group], in units of the row's scale.
template <class C>
using Scores = float[C::kMi][C::kGroups][2][4];

template <class C>
using Sums = float[C::kMi][C::kDOut / 8][4];

// P of one group of 16 keys as operand A, its low plane for split operands.
template <class C>
struct Weights {
  uint32_t p[C::kPlanes][C::kMi][4];
};

template <class C>
FNCE_DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (C::kIsHalf)
    mma_f16(d, a, b0, b1);
  else
    mma_bf16(d, a, b0, b1);
}

// The products of planes: high times high, then low times high and high times low; low times low is below float32.
template <class C>
FNCE_DEVICE constexpr bool is_multiplied(int plane_a, int plane_b) {
  return plane_a + plane_b < C::kPlanes;
}

template <class C>
FNCE_DEVICE void multiply_scores(const Shared<C>& shared, const Place<C>& place, int stage, Scores<C>& s) {
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g)
      FNCE_UNROLL for (int r = 0; r < 8; ++r) s[mi][g][r / 4][r % 4] = 0.0f;
  const RowChunk anchor = anchor_lane(place.lane), key = score_lane(place.lane);
  // 64 features a turn, the width of the swizzle: unrolled further, addresses alone would need registers.
  FNCE_NO_UNROLL for (int first = 0; first < C::kD / 16; first += 4)
      FNCE_UNROLL for (int turn = 0; turn < 4; ++turn) {  // 16 features
    const int k = first + turn;
    uint32_t a[C::kPlanes][C::kMi][4];  // 16 rows x 16 features
    FNCE_UNROLL for (int plane = 0; plane < C::kPlanes; ++plane) FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi)
        ldmatrix_x4(a[plane][mi], shared.anchors(plane) + tile_offset(place.first_row() + 16 * mi + anchor.row,
                                                                      2 * k + anchor.chunk, C::kD));
    FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g) FNCE_UNROLL for (int plane = 0; plane < C::kPlanes; ++plane) {
      uint32_t b[4];  // 16 keys x 16 features
      ldmatrix_x4(
          b, shared.keys(stage, plane) + tile_offset(place.first_key() + 16 * g + key.row, 2 * k + key.chunk, C::kD));
      FNCE_UNROLL for (int of_a = 0; of_a < C::kPlanes; ++of_a) {
        if (!is_multiplied<C>(of_a, plane)) continue;
        FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) {
          multiply<C>(s[mi][g][0], a[of_a][mi], b[0], b[1]);  // keys 0-7
          multiply<C>(s[mi][g][1], a[of_a][mi], b[2], b[3]);  // keys 8-15
        }
      }
    }
  }
}

// O += P Z of one group of 16 keys, the features of this block's slice.
template <class C>
FNCE_DEVICE void multiply_sums(const Shared<C>& shared, const Place<C>& place, int stage, int group,
                               const Weights<C>& w, Sums<C>& o) {
  const RowChunk key = sum_lane(place.lane);
  const int row = place.first_key() + 16 * group + key.row;
  const int first_chunk = static_cast<int>(blockIdx.z) * (C::kDOut / kChunk) + key.chunk;
  FNCE_UNROLL for (int k = 0; k < C::kDOut / 16; ++k)  // 16 features
      FNCE_UNROLL for (int plane = 0; plane < C::kPlanes; ++plane) {
    uint32_t b[4];  // 16 keys x 16 features
    ldmatrix_x4_trans(b, shared.keys(stage, plane) + tile_offset(row, first_chunk + 2 * k, C::kD));
    FNCE_UNROLL for (int of_p = 0; of_p < C::kPlanes; ++of_p) {
      if (!is_multiplied<C>(of_p, plane)) continue;
      FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) {
        multiply<C>(o[mi][2 * k], w.p[of_p][mi], b[0], b[1]);      // features 0-7
        multiply<C>(o[mi][2 * k + 1], w.p[of_p][mi], b[2], b[3]);  // features 8-15
      }
    }
  }
}

}  // namespace fnce::cuda::sm80
