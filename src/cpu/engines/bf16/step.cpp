// One column tile against the panels of a row block in bfloat16: all scores of a panel, then its softmax, then its sums. As
// src/cpu/engines/isa/step.cpp, but scores wait in memory, where matrix units leave them; so the tile's maximum is known before its
// first exponential.
#include "cpu/engines/bf16/products.h"
#include "cpu/pass/stats.h"

namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS {
namespace {

constexpr int kQuad = 4;  // a cycle of C: mixed scores need all of it

template <int NV>
HWY_INLINE void load_quad(const float* scores, V (&s)[kQuad][NV]) {
  FNCE_UNROLL for (int t = 0; t < kQuad; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) s[t][v] =
      hn::Load(df, scores + (t * NV + v) * kLanes);
}

template <int NV>
HWY_INLINE void copy(const V (&from)[kQuad][NV], V (&to)[kQuad][NV]) {
  FNCE_UNROLL for (int t = 0; t < kQuad; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) to[t][v] = from[t][v];
}

template <int NV>
HWY_INLINE void raise_top(const V (&s)[kQuad][NV], V (&top)[1][NV]) {
  FNCE_UNROLL for (int t = 0; t < kQuad; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) top[0][v] =
      hn::Max(top[0][v], s[t][v]);
}

// Finite values rounded to bfloat16, ties away from zero; words of two columns.
HWY_INLINE void store_pair(V even, V odd, uint32_t* out) {
  const hn::ScalableTag<uint32_t> d32;
  const auto half = hn::Set(d32, 0x8000);
  const auto low = hn::ShiftRight<16>(hn::Add(hn::BitCast(d32, even), half));
  const auto high = hn::And(hn::Add(hn::BitCast(d32, odd), half), hn::Set(d32, 0xffff0000u));
  hn::Store(hn::Or(low, high), d32, out);
}

template <TileMode kMode, int NV>
void find_maximum(const TileJob& job, const Panel& panel) {
  V top[1][NV];
  FNCE_UNROLL for (int v = 0; v < NV; ++v) top[0][v] = hn::Load(df, job.raw_scores + v * kLanes);
  if constexpr (kMode == TileMode::kMixed) FNCE_UNROLL for (int v = 0; v < NV; ++v) top[0][v] = constant(-1e30f);
  // Padded columns repeat valid ones.
  for (int j = 0; j < job.columns; j += kQuad) {
    V s[kQuad][NV];
    load_quad(job.raw_scores + int64_t{j} * NV * kLanes, s);
    if constexpr (kMode != TileMode::kMixed) raise_top(s, top);
    if constexpr (kMode == TileMode::kPlain) continue;
    mix_scores(job.lambda + j, s);
    raise_top(s, top);
  }
  update_maximum(job, panel, top, 0);
}

template <TileMode kMode, int NV, bool kTail>
HWY_INLINE void weigh_quad(const TileJob& job, const Panel& panel, int j, V (&sum)[NV]) {
  V s[kQuad][NV];
  load_quad(job.raw_scores + int64_t{j} * NV * kLanes, s);
  if constexpr (kMode == TileMode::kPlain) {
    exponentials<kQuad, NV, kTail>(job, panel, job.columns - j, s, sum);
  } else {
    V mixed[kQuad][NV];
    copy(s, mixed);
    mix_scores(job.lambda + j, mixed);
    exponentials<kQuad, NV, false>(job, panel, kQuad, mixed, sum);
    mix_weights(job.lambda + j, mixed);
    if constexpr (kMode == TileMode::kUnion) {
      exponentials<kQuad, NV, false>(job, panel, kQuad, s, sum);
      FNCE_UNROLL for (int t = 0; t < kQuad; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) mixed[t][v] =
          hn::Add(mixed[t][v], s[t][v]);
    }
    copy(mixed, s);
  }
  auto* out = reinterpret_cast<uint32_t*>(job.weights) + int64_t{j} / 2 * NV * kLanes;
  FNCE_UNROLL for (int t = 0; t < kQuad; t += 2) FNCE_UNROLL for (int v = 0; v < NV; ++v)
      store_pair(s[t][v], s[t + 1][v], out + (t / 2 * NV + v) * kLanes);
}

// P and l of the tile, zeros for padded columns.
template <TileMode kMode, int NV>
void weigh(const TileJob& job, const Panel& panel, int padded) {
  V sum[NV];
  FNCE_UNROLL for (int v = 0; v < NV; ++v) sum[v] = hn::Zero(df);
  int j = 0;
  for (; j + kQuad <= job.columns; j += kQuad) weigh_quad<kMode, NV, false>(job, panel, j, sum);
  if (j < job.columns) {
    weigh_quad<kMode, NV, true>(job, panel, j, sum);
    j += kQuad;
  }
  auto* weights = reinterpret_cast<uint32_t*>(job.weights);
  for (int64_t i = int64_t{j} / 2 * NV * kLanes; i < int64_t{padded} / 2 * NV * kLanes; ++i) weights[i] = 0;
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    float* l = panel.l + v * kLanes;
    hn::Store(hn::Add(hn::Load(df, l), sum[v]), df, l);
  }
}

template <TileMode kMode, int NV>
HWY_NOINLINE void run_panel(const TileJob& job, const Panel& panel, Prefetcher& prefetcher) {
  const int padded = static_cast<int>(round_up(job.columns, kColumnPadding));
  multiply_scores<NV>(job, panel, padded, prefetcher);
  if (!job.in_loss) return;
  find_maximum<kMode, NV>(job, panel);
  weigh<kMode, NV>(job, panel, padded);
  if (job.sums) multiply_sums<NV>(job, panel, padded, prefetcher);
}

template <int NV>
void run_panel(const TileJob& job, const Panel& panel, Prefetcher& prefetcher) {
  switch (job.mode) {
    case TileMode::kPlain: return run_panel<TileMode::kPlain, NV>(job, panel, prefetcher);
    case TileMode::kMixed: return run_panel<TileMode::kMixed, NV>(job, panel, prefetcher);
    case TileMode::kUnion: return run_panel<TileMode::kUnion, NV>(job, panel, prefetcher);
  }
}

}  // namespace

void enter() { prepare_unit(); }
void leave() { release_unit(); }

void run_tile(const TileJob& job) {
  const int padded = static_cast<int>(round_up(job.columns, kColumnPadding));
  HWY_ALIGN float tile_l[3 * kLanes] = {};  // sums of a tile stay in registers here: nothing to rescale
  Prefetcher prefetcher(job, steps_of_panel(job, padded) * job.panels.count());
  for (int p = 0; p < job.panels.count(); ++p) {
    const int64_t first = int64_t{job.panels.first_vector(p)} * kLanes;
    const Panel panel{static_cast<const uint16_t*>(job.anchors) + first * job.d_padded,
                      job.sums_o + first * job.d_padded, job.m + first, job.l + first, tile_l};
    switch (job.panels.width(p)) {
      case 3:
        if constexpr (kWidest == 3) run_panel<3>(job, panel, prefetcher);
        break;
      case 2: run_panel<2>(job, panel, prefetcher); break;
      default: run_panel<1>(job, panel, prefetcher); break;
    }
    if (job.mixed || job.unmixed) gather_statistics(job, p);
  }
}

}  // namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS
