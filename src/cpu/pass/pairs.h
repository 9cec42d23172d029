// Both directions of a batch of pairs in one tile, equation (17). Forward, the scores of a tile also belong to the
// other direction, whose rows are the tile's columns: their softmax is summed over the lanes. Backward, both
// log-sum-exps are known, so that there is no maximum to run after, and one weight has the softmax of either direction.
#pragma once
#include "core/columns.h"
#include "cpu/pass/softmax.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// The lanes whose pair is not that of packed column j: the others are no columns of each other.
HWY_INLINE hn::Mask<DF> are_strangers(const PairTile& pairs, int j, int64_t lane) {
  const auto same = hn::Eq(hn::LoadU(di, pairs.rows.numbers + lane), hn::Set(di, pairs.columns.numbers[j]));
  return hn::RebindMask(df, hn::Not(same));
}

// ---- Forward: the softmax of the columns ----------------------------------------------------------------------------

HWY_INLINE float* across_sums(const PairTile& pairs, int j) { return pairs.scratch + kColumnTile + j * kLanes; }

HWY_INLINE void start_across(const TileJob& job) {
  for (int j = 0; j < job.columns; ++j) {
    job.pairs->scratch[j] = kMinusInfinity;
    job.pairs->m[j] = kNoColumn;
    hn::Store(hn::Zero(df), df, across_sums(*job.pairs, j));
  }
}

// The scores of packed column j as a row of the other direction, kLeftOut for lanes that do not count for it.
template <int NV>
HWY_INLINE void scores_across(const TileJob& job, int j, int64_t lane, V (&x)[NV]) {
  const float* raw = job.raw_scores + int64_t{j} * NV * kLanes;
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const V bias = hn::LoadU(df, job.pairs->rows.bias + lane + v * kLanes);
    const auto in = hn::And(are_strangers(*job.pairs, j, lane + v * kLanes), hn::Not(hn::Eq(bias, constant(kLeftOut))));
    x[v] = hn::IfThenElse(in, in_base_2(job, hn::Add(hn::Load(df, raw + v * kLanes), bias)), constant(kLeftOut));
  }
}

// A score exceeds the column's maximum by more than kLazy, or is no number.
template <int NV>
HWY_NOINLINE void raise_across(const PairTile& pairs, int j, const float* x) {
  float top = pairs.scratch[j];
  bool finite = true;
  for (int i = 0; i < NV * kLanes; ++i) {
    finite = finite && x[i] == x[i];
    top = x[i] > top ? x[i] : top;
  }
  if (!finite) pairs.m[j] = __builtin_nanf("");
  float* sums = across_sums(pairs, j);
  hn::Store(hn::Mul(hn::Load(df, sums), exp2_clamped(constant(pairs.scratch[j] - top))), df, sums);
  pairs.scratch[j] = top;
}

// Adds the rows of a panel, whose raw scores lie in memory.
template <int NV>
HWY_NOINLINE void add_across(const TileJob& job, const Panel& panel) {
  const PairTile& pairs = *job.pairs;
  for (int j = 0; j < job.columns; ++j) {
    V x[NV];
    scores_across<NV>(job, j, panel.lane, x);
    // In this order a NaN stays one: on x86, the second operand is the result.
    V top = x[0];
    FNCE_UNROLL for (int v = 1; v < NV; ++v) top = hn::IfThenElse(hn::IsNaN(top), top, hn::Max(top, x[v]));
    if (HWY_UNLIKELY(!hn::AllTrue(df, hn::Le(top, constant(pairs.scratch[j] + kLazy))))) {
      HWY_ALIGN float scores[NV * kLanes];
      FNCE_UNROLL for (int v = 0; v < NV; ++v) hn::Store(x[v], df, scores + v * kLanes);
      raise_across<NV>(pairs, j, scores);
    }
    float* sums = across_sums(pairs, j);
    const V m = constant(pairs.scratch[j]);
    V sum = hn::Load(df, sums);
    FNCE_UNROLL for (int v = 0; v < NV; ++v) {
      const auto in = hn::Not(hn::Eq(x[v], constant(kLeftOut)));
      sum = hn::Add(sum, hn::IfThenElseZero(in, exp2_clamped(hn::Sub(x[v], m))));
    }
    hn::Store(sum, df, sums);
    if (pairs.m[j] == kNoColumn && !hn::AllTrue(df, hn::Eq(top, constant(kLeftOut)))) pairs.m[j] = kMinusInfinity;
  }
}

// m[j] says what the column has met: nothing, rows, or one that is no number.
HWY_INLINE void end_across(const TileJob& job) {
  const PairTile& pairs = *job.pairs;
  for (int j = 0; j < job.columns; ++j) {
    const float met = pairs.m[j];
    pairs.l[j] = met == met ? hn::GetLane(hn::SumOfLanes(df, hn::Load(df, across_sums(pairs, j)))) : met;
    if (met == kMinusInfinity) pairs.m[j] = pairs.scratch[j];
  }
}

// ---- Backward: the weights of both directions -----------------------------------------------------------------------

// Inner products of packed columns j .. j + MR - 1 -> their weights in O; the softmax of the rows is added to `sum`.
template <int MR, int NV>
HWY_INLINE void weigh_pairs(const TileJob& job, const Panel& panel, int j, V (&s)[MR][NV], V (&sum)[NV]) {
  const PairSide &rows = job.pairs->rows, &columns = job.pairs->columns;
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const int64_t lane = panel.lane + v * kLanes;
    const V bias = hn::LoadU(df, rows.bias + lane), shift = hn::LoadU(df, rows.shift + lane),
            factor = hn::LoadU(df, rows.factor + lane);
    const auto rows_are_columns = hn::Not(hn::Eq(bias, constant(kLeftOut)));
    // What is not sent is not multiplied by 0: a score may be no number.
    const auto rows_send = hn::Not(hn::Eq(factor, hn::Zero(df)));
    FNCE_UNROLL for (int t = 0; t < MR; ++t) {
      const V column_bias = constant(columns.bias[j + t]);
      const auto strangers = are_strangers(*job.pairs, j + t, lane);
      const auto forward = hn::And(strangers, hn::Not(hn::Eq(column_bias, constant(kLeftOut))));
      const V p =
          hn::IfThenElseZero(forward, exp2_clamped(hn::Sub(in_base_2(job, hn::Add(s[t][v], column_bias)), shift)));
      sum[v] = hn::Add(sum[v], p);
      const V back = exp2_clamped(hn::Sub(in_base_2(job, hn::Add(s[t][v], bias)), constant(columns.shift[j + t])));
      const V column_factor = constant(columns.factor[j + t]);
      const auto backward = hn::AndNot(hn::Eq(column_factor, hn::Zero(df)), hn::And(strangers, rows_are_columns));
      s[t][v] = hn::Add(hn::IfThenElseZero(hn::And(forward, rows_send), hn::Mul(p, factor)),
                        hn::IfThenElseZero(backward, hn::Mul(back, column_factor)));
    }
  }
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
