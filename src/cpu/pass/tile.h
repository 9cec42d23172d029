// One column tile against the panels of a row block, whatever multiplies: scores, mixing, softmax, weights, sums and
// statistics; equations (3), (7), (8), (9).
//
// An engine brings its two products and the shapes that they want, as static members of a class:
//   Element                         what packed anchors are made of
//   kWidest                         vectors of its widest panel
//   group(vectors)                  packed columns that are weighed at once, a multiple of 4: whole quads of C
//   kSumDepth                       the sums read P up to a multiple of so many columns; zeros follow the last one
//   kColumnsPerWord                 weights in 4 bytes of P: 2 in bfloat16
//   kScoresWait                     whether all scores of a panel lie in job.raw_scores before the first is weighed
//   multiply_scores<NV>(...)        puts them there; only if they wait
//   scores(job, panel, j, s, ...)   s = the scores of the group at packed column j, S^T[column][query] = z . a
//   store_weights(p, j, job)        writes P of the same group
//   multiply_sums<NV>(...)          O^T[feature][query] += z^T P
//   steps_of_panel(job, vectors)    about how many steps of the prefetcher a panel takes
// Which columns there are, and what is counted of them, is none of its business: that stands in pass/columns.h.
#pragma once
#include <cstring>

#include "cpu/pass/pairs.h"
#include "cpu/pass/softmax.h"
#include "cpu/pass/stats.h"
#include "cpu/simd/prefetch.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

template <int MR, int NV>
HWY_INLINE void copy(const V (&from)[MR][NV], V (&to)[MR][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) to[t][v] = from[t][v];
}

template <int MR, int NV>
HWY_INLINE void add(const V (&x)[MR][NV], V (&to)[MR][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) to[t][v] =
      hn::Add(to[t][v], x[t][v]);
}

template <int NV>
HWY_INLINE void add_to(const V (&x)[NV], float* lanes) {
  FNCE_UNROLL for (int v = 0; v < NV; ++v)
      hn::Store(hn::Add(x[v], hn::Load(df, lanes + v * kLanes)), df, lanes + v * kLanes);
}

template <int NV>
HWY_INLINE void set_zero(V (&x)[NV]) {
  FNCE_UNROLL for (int v = 0; v < NV; ++v) x[v] = hn::Zero(df);
}

template <int MR, int NV>
HWY_INLINE void raise_top(const V (&s)[MR][NV], V (&top)[1][NV]) {
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) top[0][v] =
      hn::Max(top[0][v], s[t][v]);
}

// Raises the maximum to that of the whole tile, whose scores wait.
template <class Products, TileMode kMode, int NV>
void find_maximum(const TileJob& job, const Panel& panel, Prefetcher& prefetcher) {
  constexpr int kGroup = Products::group(NV);
  V top[1][NV];
  FNCE_UNROLL for (int v = 0; v < NV; ++v) top[0][v] = constant(-__builtin_huge_valf());
  for (int j = 0; j < job.columns; j += kGroup) {
    V raw[kGroup][NV];
    Products::scores(job, panel, j, raw, prefetcher);
    if constexpr (has_mixed(kMode)) {
      V mixed[kGroup][NV];
      copy(raw, mixed);
      mix_scores(job.lambda + j, mixed);
      if (panel.asks) leave_out(job, job.mask->mixed, j, panel.lane, mixed);
      take_to_base_2(job, mixed);
      raise_top(mixed, top);
    }
    if constexpr (has_raw(kMode)) {
      if (panel.asks) leave_out(job, job.mask->raw, j, panel.lane, raw);
      take_to_base_2(job, raw);
      raise_top(raw, top);
    }
  }
  update_maximum(job, panel, top, 0);
}

// Scores of the group at packed column j -> what its rows of the queue weigh in O; l of its columns is added to `sum`.
template <class Products, TileMode kMode, int NV, bool kAsks>
HWY_INLINE void weigh(const TileJob& job, const Panel& panel, int j, V (&s)[Products::group(NV)][NV], V (&sum)[NV]) {
  constexpr int kGroup = Products::group(NV);
  if constexpr (kMode == TileMode::kPairs) {
    weigh_pairs(job, panel, j, s, sum);
  } else if constexpr (kMode == TileMode::kUnion) {
    V mixed[kGroup][NV];
    copy(s, mixed);
    mix_scores(job.lambda + j, mixed);
    if (kAsks && panel.asks) {
      leave_out(job, job.mask->raw, j, panel.lane, s);
      leave_out(job, job.mask->mixed, j, panel.lane, mixed);
    }
    take_to_base_2(job, s);
    take_to_base_2(job, mixed);
    // Which kind is added to l first is part of an engine's bits.
    if constexpr (Products::kScoresWait) {
      exponentials<kGroup, NV, kAsks>(job, panel, j, mixed, sum);
      exponentials<kGroup, NV, kAsks>(job, panel, j, s, sum);
    } else {
      // The maximum comes first, over both kinds: P of the raw ones must not be rescaled while it waits.
      update_maximum(job, panel, s, j);
      update_maximum(job, panel, mixed, j);
      exponentials<kGroup, NV, kAsks>(job, panel, j, s, sum);
      exponentials<kGroup, NV, kAsks>(job, panel, j, mixed, sum);
    }
    mix_weights(job.lambda + j, mixed);
    add(mixed, s);
  } else {
    if constexpr (kMode == TileMode::kMixed) mix_scores(job.lambda + j, s);
    if (kAsks && panel.asks)
      leave_out(job, kMode == TileMode::kMixed ? job.mask->mixed : job.mask->raw, j, panel.lane, s);
    take_to_base_2(job, s);
    if constexpr (!Products::kScoresWait) update_maximum(job, panel, s, j);
    exponentials<kGroup, NV, kAsks>(job, panel, j, s, sum);
    if constexpr (kMode == TileMode::kMixed) mix_weights(job.lambda + j, s);
  }
}

// One group: its scores, then P, and l in `sum`. Where scores do not wait, the maximum may rise between two groups:
// then every group's sum goes to panel.tile_l, where it is rescaled.
template <class Products, TileMode kMode, int NV, bool kAsks>
HWY_INLINE void run_group(const TileJob& job, const Panel& panel, int j, V (&sum)[NV], Prefetcher& prefetcher) {
  V s[Products::group(NV)][NV];
  Products::scores(job, panel, j, s, prefetcher);
  if (!job.in_loss) return;
  if constexpr (!Products::kScoresWait) set_zero(sum);
  weigh<Products, kMode, NV, kAsks>(job, panel, j, s, sum);
  Products::store_weights(s, j, job);
  if constexpr (!Products::kScoresWait) add_to(sum, panel.tile_l);
}

// The same for a group that may have columns that do not count, the last of a tile or one of a mask; `lanes` holds the
// sum. Not inline: such groups are few, and every copy of the product takes long to compile.
template <class Products, TileMode kMode, int NV>
HWY_NOINLINE void run_asking_group(const TileJob& job, const Panel& panel, int j, float* lanes,
                                   Prefetcher& prefetcher) {
  V sum[NV];
  FNCE_UNROLL for (int v = 0; v < NV; ++v) sum[v] = hn::Load(df, lanes + v * kLanes);
  run_group<Products, kMode, NV, true>(job, panel, j, sum, prefetcher);
  FNCE_UNROLL for (int v = 0; v < NV; ++v) hn::Store(sum[v], df, lanes + v * kLanes);
}

template <class Products, TileMode kMode, int NV>
HWY_NOINLINE void run_panel(const TileJob& job, Panel panel, Prefetcher& prefetcher) {
  constexpr int kGroup = Products::group(NV);
  HWY_ALIGN float tile_l[NV * kLanes] = {};
  panel.tile_l = tile_l;
  if constexpr (Products::kScoresWait) {
    Products::template multiply_scores<NV>(job, panel, prefetcher);
    if (!job.in_loss) return;
    if constexpr (kMode != TileMode::kPairs) find_maximum<Products, kMode, NV>(job, panel, prefetcher);
  }
  V sum[NV];
  set_zero(sum);
  int j = 0;
  for (; !panel.asks && j + kGroup <= job.columns; j += kGroup)
    run_group<Products, kMode, NV, false>(job, panel, j, sum, prefetcher);
  if (j < job.columns) {
    HWY_ALIGN float lanes[NV * kLanes];
    FNCE_UNROLL for (int v = 0; v < NV; ++v) hn::Store(sum[v], df, lanes + v * kLanes);
    for (; j < job.columns; j += kGroup) run_asking_group<Products, kMode, NV>(job, panel, j, lanes, prefetcher);
    FNCE_UNROLL for (int v = 0; v < NV; ++v) sum[v] = hn::Load(df, lanes + v * kLanes);
  }
  if (!job.in_loss) return;
  if (job.mask && !panel.asks)
    for (int64_t i = 0; i < NV * kLanes; ++i)
      job.counted[panel.lane + i] += kMode == TileMode::kUnion ? 2 * job.columns : job.columns;
  if constexpr (Products::kScoresWait) add_to(sum, tile_l);
  const int depth = static_cast<int>(round_up(job.columns, Products::kSumDepth));
  constexpr int kWord = Products::kColumnsPerWord;
  if (j < depth)
    std::memset(job.weights + j / kWord * NV * kLanes, 0,
                sizeof(float) * static_cast<size_t>((depth - j) / kWord * NV * kLanes));
  for (int v = 0; v < NV; ++v) {
    float* l = panel.l + v * kLanes;
    hn::Store(hn::Add(hn::Load(df, l), hn::Load(df, tile_l + v * kLanes)), df, l);
  }
  if (job.sums) Products::template multiply_sums<NV>(job, panel, depth, prefetcher);
}

template <class Products, int NV>
void run_panel(const TileJob& job, const Panel& panel, Prefetcher& prefetcher) {
  switch (job.mode) {
    case TileMode::kPlain: return run_panel<Products, TileMode::kPlain, NV>(job, panel, prefetcher);
    case TileMode::kMixed: return run_panel<Products, TileMode::kMixed, NV>(job, panel, prefetcher);
    case TileMode::kUnion: return run_panel<Products, TileMode::kUnion, NV>(job, panel, prefetcher);
    case TileMode::kPairs: return run_panel<Products, TileMode::kPairs, NV>(job, panel, prefetcher);
  }
}

template <class Products>
HWY_INLINE void run_tile_with(const TileJob& job) {
  int64_t steps = 0;
  for (int p = 0; p < job.panels.count(); ++p) steps += Products::steps_of_panel(job, job.panels.width(p));
  Prefetcher prefetcher(job, steps);
  const bool across = job.pairs && job.pairs->m;
  if (across) start_across(job);
  for (int p = 0; p < job.panels.count(); ++p) {
    const int64_t lane = int64_t{job.panels.first_vector(p)} * kLanes, elements = lane * job.d_padded;
    const Panel panel{static_cast<const typename Products::Element*>(job.anchors) + elements,
                      job.sums_o + elements,
                      job.m + lane,
                      job.l + lane,
                      nullptr,
                      lane,
                      asks(job, lane, job.panels.width(p))};
    switch (job.panels.width(p)) {
      case 3:
        if constexpr (Products::kWidest == 3) run_panel<Products, 3>(job, panel, prefetcher);
        if (across) add_across<3>(job, panel);
        break;
      case 2:
        run_panel<Products, 2>(job, panel, prefetcher);
        if (across) add_across<2>(job, panel);
        break;
      default:
        run_panel<Products, 1>(job, panel, prefetcher);
        if (across) add_across<1>(job, panel);
        break;
    }
    if (job.mixed || job.unmixed) {
      if (panel.asks)
        gather_statistics<true>(job, p);
      else
        gather_statistics<false>(job, p);
    }
  }
  if (across) end_across(job);
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
