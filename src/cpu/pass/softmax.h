// The softmax of a column tile, lane by lane: a running maximum, exponentials, and the mixing of scores; equations (3) and (7).
#pragma once
#include "cpu/simd/simd.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// A running maximum is raised only when a score exceeds it by this much (base 2): rescaling is rare, and 2^40 times a sum of
// 2^31 terms is far inside float32.
constexpr float kLazy = 40.0f;

// What one panel of the job works on.
struct Panel {
  const void* q;
  float *o, *m, *l;
  float* tile_l;  // l of this tile alone: a short sum first, then one addition to the long one
};

// Some score exceeds the maximum by more than kLazy: raise it for those lanes, rescale what has been summed with the old one,
// and the first `weights_done` rows of P.
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
  const V scale = constant(job.scale);
  V top[NV], excess = constant(-1.0f);
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    V a = s[0][v];
    FNCE_UNROLL for (int t = 1; t < MR; ++t) a = hn::Max(a, s[t][v]);
    top[v] = hn::Mul(a, scale);
    excess = hn::Max(excess, hn::Sub(top[v], hn::Load(df, panel.m + v * kLanes)));
  }
  if (HWY_LIKELY(hn::AllTrue(df, hn::Le(excess, constant(kLazy))))) return;
  HWY_ALIGN float tops[NV * kLanes];
  FNCE_UNROLL for (int v = 0; v < NV; ++v) hn::Store(top[v], df, tops + v * kLanes);
  raise_maximum<NV>(job, panel, tops, weights_done);
}

// s -> p = 2^(scale*s - m) in place, added to `sum`; columns from `valid` on count nothing. The product is rounded as the
// maximum was: fused, a score of 1e8 would miss its own maximum by more than an exponential can hold.
template <int MR, int NV, bool kTail>
HWY_INLINE void exponentials(const TileJob& job, const Panel& panel, int valid, V (&s)[MR][NV], V (&sum)[NV]) {
  const V scale = constant(job.scale);
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const V m = hn::Load(df, panel.m + v * kLanes);
    FNCE_UNROLL for (int t = 0; t < MR; ++t) {
      V p = exp2_clamped(hn::Sub(hn::Mul(s[t][v], scale), m));
      if (kTail) p = hn::Mul(p, constant(t < valid ? 1.0f : 0.0f));
      s[t][v] = p;
      sum[v] = hn::Add(sum[v], p);
    }
  }
}

// x_v <- lambda_v x_v + (1 - lambda_v) x_(v+1) around each quad: scores of the mixed negatives from those of the raw ones
// (mix of math/mixing.h, in vectors).
template <int MR, int NV>
HWY_INLINE void mix_scores(const float* lambda, V (&x)[MR][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; t += 4) FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    const V first = x[t][v];
    FNCE_UNROLL for (int i = 0; i < 4; ++i) {
      const V next = i < 3 ? x[t + (i + 1) % 4][v] : first;
      const V lam = constant(lambda[t + i]);
      x[t + i][v] = hn::MulAdd(lam, x[t + i][v], hn::Mul(hn::Sub(constant(1.0f), lam), next));
    }
  }
}

// x_v <- lambda_v x_v + (1 - lambda_(v-1)) x_(v-1): the weight of each raw row, the transpose of the above (mix_transposed).
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

template <int MR, int NV>
HWY_INLINE void store(const V (&x)[MR][NV], float* out) {
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v)
      hn::Store(x[t][v], df, out + (t * NV + v) * kLanes);
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
