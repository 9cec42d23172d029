// The columns of a tile: which of them exist for the rows in the lanes of a vector, what their scores are, and what
// their weights say about the packed rows of the queue; equation (3). Every engine's tiles go through this file, and
// nothing in it depends on how products are made.
#pragma once
#include "cpu/simd/simd.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// A packed row of the queue is a column as it is (raw), a column mixed with its neighbour in the cycle of C, or both.
constexpr bool has_raw(TileMode mode) { return mode != TileMode::kMixed; }
constexpr bool has_mixed(TileMode mode) { return mode == TileMode::kMixed || mode == TileMode::kUnion; }

// ---- Existence ------------------------------------------------------------------------------------------------------

// The score of a column that does not count for a row.
constexpr float kLeftOut = -__builtin_huge_valf();

// The lanes whose rows the column of packed row j counts for, equation (14); `lane` is the first of them in the task,
// `score` its inner products, row_limits those of the rows or null. This is the one notion of existence. Behind the
// last column of a tile lies padding.
HWY_INLINE hn::Mask<DF> counts(const TileJob& job, const ColumnMask& mask, const float* row_limits, int j, int64_t lane,
                               V score) {
  const auto row_numbers = hn::LoadU(di, job.row_numbers + lane);
  auto same = hn::Eq(row_numbers, hn::Set(di, mask.numbers[j]));
  if (mask.partner_numbers) same = hn::Or(same, hn::Eq(row_numbers, hn::Set(di, mask.partner_numbers[j])));
  const float bias = j < job.columns ? mask.bias[j] : kLeftOut;
  auto out = hn::Or(hn::RebindMask(df, same), hn::Eq(constant(bias), constant(kLeftOut)));
  if (mask.limits) out = hn::Or(out, hn::Gt(score, constant(mask.limits[j])));
  if (row_limits) out = hn::Or(out, hn::Gt(score, hn::LoadU(df, row_limits + lane)));
  return hn::Not(out);
}

// The inner products of packed row j: no numbers where the column is not finite, for which zeros were packed.
HWY_INLINE V with_spoiled(const ColumnMask& mask, int j, V score) {
  return mask.spoiled ? hn::Add(score, constant(mask.spoiled[j])) : score;
}

// True if some row of a panel may not have all columns of the tile as they are.
HWY_INLINE bool asks(const TileJob& job, int64_t lane, int vectors) {
  if (!job.mask) return false;
  if (!job.mask->by_number_alone) return true;
  bool any = false;
  for (int64_t i = lane; i < lane + int64_t{vectors} * kLanes; ++i)
    any |= job.row_numbers[i] >= job.mask->first_number && job.row_numbers[i] <= job.mask->last_number;
  return any;
}

// Inner products -> those of columns that count, with their biases, equation (15); kLeftOut otherwise. The columns are
// those of packed rows j .. j + MR - 1, all of one kind.
template <int MR, int NV>
HWY_INLINE void leave_out(const TileJob& job, const ColumnMask& mask, int j, int64_t lane, V (&s)[MR][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const V x = with_spoiled(mask, j + t, s[t][v]);
    const auto count = counts(job, mask, job.row_limits[0], j + t, lane + v * kLanes, x);
    s[t][v] = hn::IfThenElse(count, hn::Add(x, constant(mask.bias[j + t])), constant(kLeftOut));
  }
}

// The lanes that have a weight: all but those of kLeftOut, and without a mask all but padding. A NaN keeps its weight.
HWY_INLINE hn::Mask<DF> weighs(const TileJob& job, bool asks, int j, V score) {
  if (asks) return hn::Not(hn::Eq(score, constant(kLeftOut)));
  return hn::RebindMask(df, hn::Lt(hn::Set(di, j), hn::Set(di, job.columns)));
}

// ---- Scores ---------------------------------------------------------------------------------------------------------

// The score of a column as the softmax takes it: in base 2. The product is rounded: fused with the subtraction of the
// maximum, a score of 1e8 would miss its own maximum by more than an exponential can hold.
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
  HWY_INLINE V operator()(int j) const { return mix_lanes(constant(lambda[j]), raw(j), raw(next_in_quad(j))); }
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
