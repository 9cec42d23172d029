// The two matrix products of a column tile: scores S = a Z^T and sums O += P Z, from one and the same tile in shared
// memory.
#pragma once
#include "kernels/engines/sm80/atoms.cuh"
#include "kernels/engines/sm80/config.cuh"

namespace fnce::cuda::sm80 {

// Raw scores of a warp: [row tile][group of 16 columns][half of the group], in units of the row's scale.
template <class C>
using Scores = float[C::kMi][C::kGroups][2][4];

// A warp's anchors as operand A, in registers where warps divide the features.
template <class C>
using Anchors = uint32_t[C::kFeatures / 16][C::kPlanes][C::kMi][4];

template <class C>
using Sums = float[C::kMi][C::kFeatures / 8][4];

// P of one group of 16 columns as operand A, its low plane for split operands.
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

// d += A B of 16x8x16, all planes. The matrix units cut off, towards zero, what does not fit into a sum: over many
// steps that takes the last digits of float32. kRounds: the products of a step are summed from zero and added with
// rounding. Low planes come first: each product costs a digit of what is there before it.
template <class C, bool kRounds>
FNCE_DEVICE void add_products(const uint32_t (&a)[C::kPlanes][C::kMi][4], int mi, const uint32_t (&b)[C::kPlanes][4],
                              int half, float (&d)[4]) {
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  FNCE_UNROLL for (int plane = C::kPlanes - 1; plane >= 0; --plane)
      FNCE_UNROLL for (int of_a = C::kPlanes - 1; of_a >= 0; --of_a) if (is_multiplied<C>(of_a, plane))
          multiply<C>(kRounds ? sum : d, a[of_a][mi], b[plane][2 * half], b[plane][2 * half + 1]);
  if constexpr (kRounds) FNCE_UNROLL for (int r = 0; r < 4; ++r) d[r] += sum[r];
}

template <class C>
FNCE_DEVICE void start_scores(Scores<C>& s) {
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g)
      FNCE_UNROLL for (int r = 0; r < 8; ++r) s[mi][g][r / 4][r % 4] = 0.0f;
}

// S += a Z^T of 16 features. `offset` is where ldmatrix finds the lane's row and chunk of the first 16 columns in a
// plane of the tile.
template <class C, bool kRounds>
FNCE_DEVICE void multiply_columns(const Shared<C>& shared, int stage, int offset,
                                  const uint32_t (&a)[C::kPlanes][C::kMi][4], Scores<C>& s) {
  FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g) {
    uint32_t b[C::kPlanes][4];  // 16 columns x 16 features
    FNCE_UNROLL for (int plane = 0; plane < C::kPlanes; ++plane)
        ldmatrix_x4(b[plane], shared.columns(stage, plane) + offset + 16 * g * C::kD);
    FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi)
        FNCE_UNROLL for (int half = 0; half < 2; ++half)  // columns 0-7, 8-15
        add_products<C, kRounds>(a, mi, b, half, s[mi][g][half]);
  }
}

// Makes the scores of a warp's columns from all features.
template <class C, bool kRounds>
FNCE_DEVICE void multiply_scores(const Shared<C>& shared, const Place<C>& place, int stage, Scores<C>& s) {
  start_scores<C>(s);
  const RowChunk anchor = anchor_lane(place.lane), column = score_lane(place.lane);
  // 64 features a turn, the width of the swizzle: unrolled further, addresses alone would need registers.
  FNCE_NO_UNROLL for (int first = 0; first < C::kD / 16; first += 4)
      FNCE_UNROLL for (int turn = 0; turn < 4; ++turn) {  // 16 features
    const int k = first + turn;
    uint32_t a[C::kPlanes][C::kMi][4];  // 16 rows x 16 features
    FNCE_UNROLL for (int plane = 0; plane < C::kPlanes; ++plane) FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi)
        ldmatrix_x4(a[plane][mi], shared.anchors(plane) + tile_offset(place.first_row() + 16 * mi + anchor.row,
                                                                      2 * k + anchor.chunk, C::kD));
    multiply_columns<C, kRounds>(shared, stage,
                                 tile_offset(place.first_column() + column.row, 2 * k + column.chunk, C::kD), a, s);
  }
}

// Makes the scores of all columns where warps divide the features: each multiplies its own, and adds up what all have,
// in their order. A barrier must lie between two calls, and between the last one and whatever else takes the place of
// the partial scores.
template <class C, bool kRounds>
FNCE_DEVICE void multiply_scores(const Shared<C>& shared, const Place<C>& place, int stage, const Anchors<C>& a,
                                 Scores<C>& s) {
  start_scores<C>(s);
  const RowChunk column = score_lane(place.lane);
  FNCE_UNROLL for (int k = 0; k < C::kFeatures / 16; ++k) {
    // Chunks 8 apart, the width of the swizzle, lie 8 chunks apart: four addresses do for all.
    const int offset =
        tile_offset(column.row, 2 * (k % 4) + column.chunk, C::kD) + place.first_feature() + 64 * (k / 4);
    multiply_columns<C, kRounds>(shared, stage, offset, a[k], s);
    if (kRounds) __syncwarp();  // keeps ptxas from loading ahead what then takes too many registers
  }
  float4* own = shared.partial_scores(place.row_warp, place.feature_warp) + place.lane;
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int i = 0; i < 2 * C::kGroups; ++i) {
    const float(&x)[4] = s[mi][i / 2][i % 2];
    own[(2 * C::kGroups * mi + i) * 32] = make_float4(x[0], x[1], x[2], x[3]);
  }
  __syncthreads();
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int i = 0; i < 2 * C::kGroups; ++i) {
    float(&sum)[4] = s[mi][i / 2][i % 2];
    FNCE_UNROLL for (int warp = 0; warp < C::kFeatureWarps; ++warp) {
      const float4 x = shared.partial_scores(place.row_warp, warp)[(2 * C::kGroups * mi + i) * 32 + place.lane];
      const float part[4] = {x.x, x.y, x.z, x.w};
      FNCE_UNROLL for (int r = 0; r < 4; ++r) sum[r] = warp == 0 ? part[r] : sum[r] + part[r];
    }
  }
}

// O += P Z of one group of 16 columns, the warp's features.
template <class C>
FNCE_DEVICE void multiply_sums(const Shared<C>& shared, const Place<C>& place, int stage, int group,
                               const Weights<C>& w, Sums<C>& o) {
  const RowChunk column = sum_lane(place.lane);
  const int row = place.first_column() + 16 * group + column.row;
  FNCE_UNROLL for (int k = 0; k < C::kFeatures / 16; ++k) {  // 16 features
    const int offset = tile_offset(row, 2 * (k % 4) + column.chunk, C::kD) + place.first_feature() + 64 * (k / 4);
    uint32_t b[C::kPlanes][4];  // 16 columns x 16 features
    FNCE_UNROLL for (int plane = 0; plane < C::kPlanes; ++plane)
        ldmatrix_x4_trans(b[plane], shared.columns(stage, plane) + offset);
    FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi)
        FNCE_UNROLL for (int half = 0; half < 2; ++half)  // features 0-7, 8-15
        add_products<C, (C::kPlanes > 1)>(w.p, mi, b, half, o[mi][2 * k + half]);
  }
}

}  // namespace fnce::cuda::sm80
