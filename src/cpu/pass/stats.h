// Score statistics of one column tile, equation (9), from the raw scores that the first GEMM left behind. Lane-wise,
// like all the rest: a lane is a query. A tile's own mean and sum of squares come first and are merged by Chan's
// formula. Vector forms of math/stats.h.
#pragma once
#include "cpu/pass/columns.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

template <class Scores>
HWY_INLINE void add_moments(const TileJob& job, const Scores& score, V sum, StatsLanes& s, int64_t lane) {
  const auto added = count_existing(job, lane);
  const V columns = hn::ConvertTo(df, added), mean = hn::Mul(sum, hn::Div(constant(1.0f), columns));
  V m2 = hn::Zero(df);
  for (int j = 0; j < job.columns; ++j) {
    const V deviation = hn::Sub(score(j), mean);
    m2 = hn::MulAdd(deviation, deviation, m2);
  }
  const auto before = hn::Load(di, s.count + lane), count = hn::Add(before, added);
  const V share = hn::Div(columns, hn::ConvertTo(df, count));
  const V old_mean = hn::Load(df, s.mean + lane), delta = hn::Sub(mean, old_mean);
  const V both_m2 = hn::MulAdd(hn::Mul(delta, delta), hn::Mul(hn::ConvertTo(df, before), share),
                               hn::Add(m2, hn::Load(df, s.m2 + lane)));
  const auto is_first = hn::RebindMask(df, hn::Eq(before, hn::Zero(di)));
  hn::Store(hn::IfThenElse(is_first, mean, hn::MulAdd(delta, share, old_mean)), df, s.mean + lane);
  hn::Store(hn::IfThenElse(is_first, m2, both_m2), df, s.m2 + lane);
  hn::Store(count, di, s.count + lane);
}

template <class Scores>
HWY_INLINE void add_log_sum(const TileJob& job, const Scores& score, float* m_out, float* l_out) {
  const V old_m = hn::Load(df, m_out);
  V m = old_m;
  for (int j = 0; j < job.columns; ++j) m = hn::Max(m, in_base_2(job, score(j)));
  V l = hn::Mul(hn::Load(df, l_out), exp2_clamped(hn::Sub(old_m, m)));
  for (int j = 0; j < job.columns; ++j) l = hn::Add(l, exp2_clamped(hn::Sub(in_base_2(job, score(j)), m)));
  hn::Store(m, df, m_out);
  hn::Store(l, df, l_out);
}

// Adds the scores of one kind of columns, raw or mixed, for the vector of queries at `lane`.
template <class Scores>
HWY_INLINE void add_scores(const TileJob& job, const Scores& score, StatsLanes& s, int64_t lane) {
  const V upper = hn::LoadU(df, s.upper + lane), lower = hn::LoadU(df, s.lower + lane);
  const auto one = hn::Set(di, 1);
  V sum = hn::Zero(df), min = hn::Load(df, s.min + lane), top = score(0);
  auto greater = hn::Load(di, s.n_greater + lane), greater_equal = hn::Load(di, s.n_greater_equal + lane);
  for (int j = 0; j < job.columns; ++j) {
    const V x = score(j);
    sum = hn::Add(sum, x);
    min = hn::Min(min, x);
    top = hn::Max(top, x);
    greater = hn::Add(greater, hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(x, upper)), one));
    // Not below: a NaN must not count as a hit of the positive.
    greater_equal = hn::Add(greater_equal, hn::IfThenZeroElse(hn::RebindMask(di, hn::Lt(x, lower)), one));
  }
  hn::Store(min, df, s.min + lane);
  hn::Store(hn::Max(hn::Load(df, s.max + lane), top), df, s.max + lane);
  hn::Store(greater, di, s.n_greater + lane);
  hn::Store(greater_equal, di, s.n_greater_equal + lane);
  add_moments(job, score, sum, s, lane);
  if (s.m) add_log_sum(job, score, s.m + lane, s.l + lane);
}

HWY_NOINLINE void gather_statistics(const TileJob& job, int panel) {
  const int vectors = job.panels.width(panel);
  for (int v = 0; v < vectors; ++v) {
    const int64_t lane = (int64_t{job.panels.first_vector(panel)} + v) * kLanes;
    const RawScores raw{job.raw_scores + v * kLanes, int64_t{vectors} * kLanes};
    if (job.unmixed) add_scores(job, raw, *job.unmixed, lane);
    if (!job.mixed) continue;
    if (has_mixed(job.mode)) add_scores(job, MixedScores{raw, job.lambda}, *job.mixed, lane);
    if (has_raw(job.mode)) add_scores(job, raw, *job.mixed, lane);
  }
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
