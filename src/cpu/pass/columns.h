// The columns of a tile: which of them exist for the rows in the lanes of a vector, what their scores are, and what
// their weights say about the packed rows of the queue; equation (3). Every engine's tiles go through this file, and
// nothing in it depends on how products are made.
#pragma once
#include "cpu/simd/simd.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// A packed row of the queue is a column as it is (raw), a column mixed with its neighbour in the cycle of C, or both.
constexpr bool has_raw(TileMode mode) { return mode != TileMode::kMixed; }
constexpr bool has_mixed(TileMode mode) { return mode != TileMode::kPlain; }

// ---- Existence ------------------------------------------------------------------------------------------------------

// The lanes whose rows have the column of packed row j; `lane` is the first of them in the task. This is the one notion
// of existence. All rows have all columns up to the end of the tile, behind which its padding lies. Padding repeats
// columns that exist and so cannot raise a maximum: only weights ask. If a row could lack a column before the end, its
// score would have to be -infinity for the maximum, and the statistics (stats.h) would have to ask as well.
HWY_INLINE hn::Mask<DF> exists(const TileJob& job, int j, [[maybe_unused]] int64_t lane) {
  return hn::RebindMask(df, hn::Lt(hn::Set(di, j), hn::Set(di, job.columns)));
}

// How many columns of one kind, raw or mixed, each row in the lanes from `lane` on has in the tile.
HWY_INLINE hn::Vec<DI> count_existing(const TileJob& job, [[maybe_unused]] int64_t lane) {
  return hn::Set(di, job.columns);
}

// ---- Scores ---------------------------------------------------------------------------------------------------------

// The score of a column as the softmax takes it: in base 2. A bias of the column would be added here, and nowhere else.
// The product is rounded: fused with the subtraction of the maximum, a score of 1e8 would miss its own maximum by more
// than an exponential can hold.
HWY_INLINE V in_base_2(const TileJob& job, V score) { return hn::Mul(score, constant(job.scale)); }

template <int MR, int NV>
HWY_INLINE void take_to_base_2(const TileJob& job, V (&s)[MR][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) s[t][v] = in_base_2(job, s[t][v]);
}

// The raw scores A_j of one vector of queries.
struct RawScores {
  const float* a;
  int64_t stride;
  HWY_INLINE V operator()(int j) const { return hn::Load(df, a + j * stride); }
};

// The mixed ones, made of the raw ones.
struct MixedScores {
  RawScores raw;
  const float* lambda;
  HWY_INLINE V operator()(int j) const { return mix_lanes(constant(lambda[j]), raw(j), raw((j & ~3) | ((j + 1) & 3))); }
};

// x_v <- lambda_v x_v + (1 - lambda_v) x_(v+1) around each quad: scores of the mixed columns from those of the raw
// ones.
template <int MR, int NV>
HWY_INLINE void mix_scores(const float* lambda, V (&x)[MR][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; t += 4) FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const V first = x[t][v];
    FNCE_UNROLL for (int i = 0; i < 4; ++i) {
      const V next = i < 3 ? x[t + (i + 1) % 4][v] : first;
      x[t + i][v] = mix_lanes(constant(lambda[t + i]), x[t + i][v], next);
    }
  }
}

// ---- Weights --------------------------------------------------------------------------------------------------------

// x_v <- lambda_v x_v + (1 - lambda_(v-1)) x_(v-1): the weight of each raw row, the transpose of mix_scores
// (mix_transposed of math/mixing.h, in vectors).
template <int MR, int NV>
HWY_INLINE void mix_weights(const float* lambda, V (&x)[MR][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; t += 4) FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const V last = x[t + 3][v];
    FNCE_UNROLL for (int i = 3; i >= 0; --i) {
      const V before = i > 0 ? x[t + (i + 3) % 4][v] : last;
      const V rest = hn::Sub(constant(1.0f), constant(lambda[t + (i + 3) % 4]));
      x[t + i][v] = hn::MulAdd(constant(lambda[t + i]), x[t + i][v], hn::Mul(rest, before));
    }
  }
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
