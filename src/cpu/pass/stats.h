// Score statistics of one column tile, equation (9), from the raw scores that the first GEMM left behind. Lane-wise,
// like all the rest: a lane is a query. A tile's own mean and sum of squares come first and are merged by Chan's
// formula. Vector forms of math/stats.h.
#pragma once
#include "cpu/pass/columns.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// The columns of one kind, raw or mixed: their scores for the vector of queries at `lane`, and what counts of them.
// Only with kAsks can anything be left out.
template <class Scores, bool kAsks>
struct Kind {
  const TileJob& job;
  Scores score;
  const ColumnMask* mask;
  const float* row_limits;
  int64_t lane;

  HWY_INLINE V product(int j) const {
    if constexpr (!kAsks) return score(j);
    return with_spoiled(*mask, j, score(j));
  }
  HWY_INLINE hn::Mask<DF> count(int j, V x) const { return counts(job, *mask, row_limits, j, lane, x); }
  // As the softmax takes it.
  HWY_INLINE V logit(int j) const {
    const V x = product(j);
    if constexpr (!kAsks) return in_base_2(job, x);
    return hn::IfThenElse(count(j, x), in_base_2(job, hn::Add(x, constant(mask->bias[j]))), constant(kLeftOut));
  }
};

// `added` columns with the sum `sum`.
template <class Scores, bool kAsks>
HWY_INLINE void add_moments(const Kind<Scores, kAsks>& kind, V sum, hn::Vec<DI> added, StatsLanes& s) {
  const TileJob& job = kind.job;
  const int64_t lane = kind.lane;
  const V one = constant(1.0f);
  // Without a column, mean and M2 are 0 and have no share.
  const auto at_least_one = [&](V count) { return kAsks ? hn::Max(count, one) : count; };
  const V columns = hn::ConvertTo(df, added), mean = hn::Mul(sum, hn::Div(one, at_least_one(columns)));
  V m2 = hn::Zero(df);
  for (int j = 0; j < job.columns; ++j) {
    const V x = kind.product(j);
    V deviation = hn::Sub(x, mean);
    if constexpr (kAsks) deviation = hn::IfThenElseZero(kind.count(j, x), deviation);
    m2 = hn::MulAdd(deviation, deviation, m2);
  }
  const auto before = hn::Load(di, s.count + lane), count = hn::Add(before, added);
  const V share = hn::Div(columns, at_least_one(hn::ConvertTo(df, count)));
  const V old_mean = hn::Load(df, s.mean + lane), delta = hn::Sub(mean, old_mean);
  const V both_m2 = hn::MulAdd(hn::Mul(delta, delta), hn::Mul(hn::ConvertTo(df, before), share),
                               hn::Add(m2, hn::Load(df, s.m2 + lane)));
  const auto is_first = hn::RebindMask(df, hn::Eq(before, hn::Zero(di)));
  hn::Store(hn::IfThenElse(is_first, mean, hn::MulAdd(delta, share, old_mean)), df, s.mean + lane);
  hn::Store(hn::IfThenElse(is_first, m2, both_m2), df, s.m2 + lane);
  hn::Store(count, di, s.count + lane);
}

template <class Scores, bool kAsks>
HWY_INLINE void add_log_sum(const Kind<Scores, kAsks>& kind, float* m_out, float* l_out) {
  const int columns = kind.job.columns;
  const V old_m = hn::Load(df, m_out);
  V m = old_m;
  for (int j = 0; j < columns; ++j) m = hn::Max(m, kind.logit(j));
  V l = hn::Mul(hn::Load(df, l_out), exp2_clamped(hn::Sub(old_m, m)));
  for (int j = 0; j < columns; ++j) {
    const V logit = kind.logit(j);
    V p = exp2_clamped(hn::Sub(logit, m));
    if constexpr (kAsks) p = hn::IfThenElseZero(hn::Not(hn::Eq(logit, constant(kLeftOut))), p);
    l = hn::Add(l, p);
  }
  hn::Store(m, df, m_out);
  hn::Store(l, df, l_out);
}

template <class Scores, bool kAsks>
HWY_INLINE void add_scores(const Kind<Scores, kAsks>& kind, StatsLanes& s) {
  const TileJob& job = kind.job;
  const int64_t lane = kind.lane;
  const V upper = hn::LoadU(df, s.upper + lane), lower = hn::LoadU(df, s.lower + lane);
  const auto one = hn::Set(di, 1);
  V sum = hn::Zero(df), min = hn::Load(df, s.min + lane), top = kAsks ? constant(kLeftOut) : kind.score(0);
  auto greater = hn::Load(di, s.n_greater + lane), greater_equal = hn::Load(di, s.n_greater_equal + lane);
  auto added = kAsks ? hn::Zero(di) : hn::Set(di, job.columns);
  for (int j = 0; j < job.columns; ++j) {
    const V x = kind.product(j);
    auto above = hn::RebindMask(di, hn::Gt(x, upper));
    // Not below: a NaN must not count as a hit of the positive.
    auto not_below = hn::Not(hn::RebindMask(di, hn::Lt(x, lower)));
    if constexpr (kAsks) {
      const auto count = kind.count(j, x);
      const auto count_i = hn::RebindMask(di, count);
      sum = hn::Add(sum, hn::IfThenElseZero(count, x));
      min = hn::Min(min, hn::IfThenElse(count, x, constant(-kLeftOut)));
      top = hn::Max(top, hn::IfThenElse(count, x, constant(kLeftOut)));
      above = hn::And(above, count_i);
      not_below = hn::And(not_below, count_i);
      added = hn::Add(added, hn::IfThenElseZero(count_i, one));
    } else {
      sum = hn::Add(sum, x);
      min = hn::Min(min, x);
      top = hn::Max(top, x);
    }
    greater = hn::Add(greater, hn::IfThenElseZero(above, one));
    greater_equal = hn::Add(greater_equal, hn::IfThenElseZero(not_below, one));
  }
  hn::Store(min, df, s.min + lane);
  hn::Store(hn::Max(hn::Load(df, s.max + lane), top), df, s.max + lane);
  hn::Store(greater, di, s.n_greater + lane);
  hn::Store(greater_equal, di, s.n_greater_equal + lane);
  add_moments(kind, sum, added, s);
  if (s.m) add_log_sum(kind, s.m + lane, s.l + lane);
}

template <bool kAsks>
HWY_NOINLINE void gather_statistics(const TileJob& job, int panel) {
  const int vectors = job.panels.width(panel);
  for (int v = 0; v < vectors; ++v) {
    const int64_t lane = (int64_t{job.panels.first_vector(panel)} + v) * kLanes;
    const RawScores raw{job.raw_scores + v * kLanes, int64_t{vectors} * kLanes};
    const ColumnMask *raw_mask = job.mask ? &job.mask->raw : nullptr,
                     *mixed_mask = job.mask ? &job.mask->mixed : nullptr;
    const auto add_raw = [&](StatsLanes& s, const float* limits) {
      add_scores(Kind<RawScores, kAsks>{job, raw, raw_mask, limits, lane}, s);
    };
    if (job.unmixed) add_raw(*job.unmixed, job.row_limits[1]);
    if (!job.mixed) continue;
    if (has_mixed(job.mode))
      add_scores(Kind<MixedScores, kAsks>{job, {raw, job.lambda}, mixed_mask, job.row_limits[0], lane}, *job.mixed);
    if (has_raw(job.mode)) add_raw(*job.mixed, job.row_limits[0]);
  }
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
