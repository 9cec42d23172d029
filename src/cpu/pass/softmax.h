// The softmax of a column tile, lane by lane: a running maximum and exponentials, equation (7). Scores are in base 2.
#pragma once
#include "cpu/pass/columns.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// A running maximum is raised only when a score exceeds it by this much (base 2): rescaling is rare, and 2^40 times a
// sum of 2^31 terms is far inside float32.
constexpr float kLazy = 40.0f;

// What one panel of the job works on.
struct Panel {
  const void* anchors;
  float *o, *m, *l;
  float* tile_l;  // l of this tile alone: a short sum first, then one addition to the long one
  int64_t lane;   // the first of its lanes in the task
  bool asks;      // the mask of the tile concerns some of its rows
};

// Some score exceeds the maximum by more than kLazy: raise it for those lanes, rescale what has been summed with the
// old one, and the first `weights_done` rows of P.
template <int NV>
HWY_NOINLINE void raise_maximum(const TileJob& job, const Panel& panel, const float* top, int weights_done) {
  HWY_ALIGN float factor[NV * kLanes];
  for (int v = 0; v < NV; ++v) {
    const V m = hn::Load(df, panel.m + v * kLanes), t = hn::Load(df, top + v * kLanes);
    const auto raise = hn::Gt(hn::Sub(t, m), constant(kLazy));
    const V f = hn::IfThenElse(raise, exp2_clamped(hn::Sub(m, t)), constant(1.0f));
    hn::Store(f, df, factor + v * kLanes);
    hn::Store(hn::IfThenElse(raise, t, m), df, panel.m + v * kLanes);
  }
  const auto rescale = [&](float* rows, int64_t count) {
    for (int64_t r = 0; r < count; ++r)
      for (int v = 0; v < NV; ++v) {
        float* x = rows + (r * NV + v) * kLanes;
        hn::Store(hn::Mul(hn::Load(df, x), hn::Load(df, factor + v * kLanes)), df, x);
      }
  };
  rescale(panel.l, 1);
  rescale(panel.tile_l, 1);
  rescale(job.weights, weights_done);
  if (job.sums) rescale(panel.o, job.d_padded);
}

template <int MR, int NV>
HWY_INLINE void update_maximum(const TileJob& job, const Panel& panel, const V (&s)[MR][NV], int weights_done) {
  V top[NV], excess = constant(-1.0f);
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    top[v] = s[0][v];
    FNCE_UNROLL for (int t = 1; t < MR; ++t) top[v] = hn::Max(top[v], s[t][v]);
    // In this order a row that is NaN hides no other: on x86, the second operand is the result.
    excess = hn::Max(hn::Sub(top[v], hn::Load(df, panel.m + v * kLanes)), excess);
  }
  if (HWY_LIKELY(hn::AllTrue(df, hn::Le(excess, constant(kLazy))))) return;
  HWY_ALIGN float tops[NV * kLanes];
  FNCE_UNROLL for (int v = 0; v < NV; ++v) hn::Store(top[v], df, tops + v * kLanes);
  raise_maximum<NV>(job, panel, tops, weights_done);
}

// Adds the columns that count to what the rows have met, and marks the rows that one of them gives no number.
template <int MR, int NV>
HWY_INLINE void count_columns(const TileJob& job, const Panel& panel, const V (&s)[MR][NV]) {
  const auto one = hn::Set(di, 1);
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    int32_t* counted = job.counted + panel.lane + v * kLanes;
    auto count = hn::LoadU(di, counted);
    FNCE_UNROLL for (int t = 0; t < MR; ++t) count =
        hn::Add(count, hn::IfThenElseZero(hn::RebindMask(di, hn::Not(hn::Eq(s[t][v], constant(kLeftOut)))), one));
    hn::StoreU(count, di, counted);
    int32_t* not_finite = job.not_finite + panel.lane + v * kLanes;
    auto none = hn::LoadU(di, not_finite);
    FNCE_UNROLL for (int t = 0; t < MR; ++t) none =
        hn::Or(none, hn::IfThenElseZero(hn::RebindMask(di, hn::IsNaN(s[t][v])), hn::Set(di, 1)));
    hn::StoreU(none, di, not_finite);
  }
}

// s -> p = 2^(s - m) in place, added to `sum`, of the columns of packed rows j .. j + MR - 1. What does not exist has
// no weight; only with kAsks can there be such a thing.
template <int MR, int NV, bool kAsks>
HWY_INLINE void exponentials(const TileJob& job, const Panel& panel, int j, V (&s)[MR][NV], V (&sum)[NV]) {
  if (kAsks && panel.asks) count_columns(job, panel, s);
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const V m = hn::Load(df, panel.m + v * kLanes);
    FNCE_UNROLL for (int t = 0; t < MR; ++t) {
      V p = exp2_clamped(hn::Sub(s[t][v], m));
      if (kAsks) p = hn::IfThenElseZero(weighs(job, panel.asks, j + t, s[t][v]), p);
      s[t][v] = p;
      sum[v] = hn::Add(sum[v], p);
    }
  }
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
