// One column tile against the panels of a row block: scores, mixing, exponentials and sums in one pass, equations (3), (7), (8).
//
// Queries lie in the lanes of both GEMMs, C[MR][NV vectors] += sum_k broadcast(A(r, k)) * B[k][NV vectors]:
//   scores   S^T[column][query]  k = feature, A = z[column r][feature k], B = the packed anchors
//   sums     O^T[feature][query]  k = column, A = z[column k][feature r], B = P, which is the first GEMM's output as it stands
// The softmax is lane-wise work on the first one's accumulators: no horizontal operation, one store of P.
#include "cpu/engines/isa/tile32.h"
#include "cpu/pass/softmax.h"
#include "cpu/pass/stats.h"
#include "cpu/simd/prefetch.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

#if HWY_MAX_BYTES == 64 || HWY_ARCH_ARM_A64  // AVX-512, NEON
constexpr int kMR = 8;                       // 32 registers: 8 x 3 accumulators, 3 of B, 1 broadcast
constexpr int kMR2 = 12;                     // columns per micro tile for 2-vector panels
#else
constexpr int kMR = 4;  // 16 registers: 4 x 3 accumulators, 3 of B, 1 broadcast
constexpr int kMR2 = 4;
#endif
static_assert(kColumnPadding % kMR == 0 && kColumnPadding % kMR2 == 0 && kColumnPadding % 8 == 0);
static_assert(kColumnTile % kColumnPadding == 0 && kDimBlock % kMR == 0);

// acc += sum over `blocks` groups of 8 k's; A(t, k) = a[t * kRowStep + k * kStep] inside a group, groups `a_block` apart.
template <int MR, int NV, int kRowStep, int kStep>
HWY_INLINE void micro_tile(const float* HWY_RESTRICT a, int64_t a_block, const float* HWY_RESTRICT b, int64_t blocks,
                           V (&acc)[MR][NV], Prefetcher& prefetcher) {
  for (int64_t block = 0; block < blocks; ++block) {
    prefetcher.step();
    FNCE_UNROLL for (int r = 0; r < 8; ++r) {
      V vb[NV];
      FNCE_UNROLL for (int v = 0; v < NV; ++v) vb[v] = hn::Load(df, b + (r * NV + v) * kLanes);
      FNCE_UNROLL for (int t = 0; t < MR; ++t) {
        const V va = constant(a[t * kRowStep + r * kStep]);
        FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::MulAdd(va, vb[v], acc[t][v]);
      }
      // Keeps later broadcasts below this point: hoisted, they would spill the accumulators. Where these do not fit into the
      // registers anyway (SSE2, which has no fused multiply-add), it would only hold up their loads.
#if HWY_MAX_BYTES > 16 || HWY_ARCH_ARM_A64
      asm volatile("" ::: "memory");
#endif
    }
    a += a_block;
    b += 8 * NV * kLanes;
  }
}

HWY_INLINE const float* columns_of(const TileJob& job) { return static_cast<const float*>(job.packed); }

// MR columns x NV vectors of queries: scores, then P and l.
template <TileMode kMode, int MR, int NV, bool kTail>
HWY_INLINE void score_tile(const TileJob& job, const Panel& panel, int j, int valid, Prefetcher& prefetcher) {
  V acc[MR][NV];
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::Zero(df);
  micro_tile<MR, NV, kDimBlock, 1>(columns_of(job) + j * kDimBlock, kTileStride, static_cast<const float*>(panel.q),
                                   job.d_padded / 8, acc, prefetcher);
  if (job.mixed || job.unmixed) store(acc, job.raw_scores + int64_t{j} * NV * kLanes);
  if (!job.in_loss) return;

  float* weights = job.weights + int64_t{j} * NV * kLanes;
  V sum[NV];
  FNCE_UNROLL for (int v = 0; v < NV; ++v) sum[v] = hn::Zero(df);
  if constexpr (kMode == TileMode::kUnion) {
    // The maximum first, over both kinds of columns: P of the raw ones must not be rescaled while it waits.
    update_maximum(job, panel, acc, j);
    V mixed[MR][NV];
    FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) mixed[t][v] = acc[t][v];
    mix_scores(job.lambda + j, mixed);
    update_maximum(job, panel, mixed, j);
    exponentials<MR, NV, kTail>(job, panel, valid, acc, sum);
    store(acc, weights);
    exponentials<MR, NV, kTail>(job, panel, valid, mixed, sum);
    mix_weights(job.lambda + j, mixed);
    FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) mixed[t][v] =
        hn::Add(mixed[t][v], hn::Load(df, weights + (t * NV + v) * kLanes));
    store(mixed, weights);
  } else {
    if constexpr (kMode == TileMode::kMixed) mix_scores(job.lambda + j, acc);
    update_maximum(job, panel, acc, j);
    exponentials<MR, NV, kTail>(job, panel, valid, acc, sum);
    if constexpr (kMode == TileMode::kMixed) mix_weights(job.lambda + j, acc);
    store(acc, weights);
  }
  FNCE_UNROLL for (int v = 0; v < NV; ++v) {
    float* l = panel.tile_l + v * kLanes;
    hn::Store(hn::Add(sum[v], hn::Load(df, l)), df, l);
  }
}

// O^T += z^T P for one panel.
template <int NV>
HWY_INLINE void add_sums(const TileJob& job, const Panel& panel, int64_t columns, Prefetcher& prefetcher) {
  for (int64_t dim = 0; dim < job.d_padded; dim += kMR) {
    float* o = panel.o + dim * NV * kLanes;
    FNCE_UNROLL for (int t = 0; t < kMR * NV; ++t) __builtin_prefetch(o + t * kLanes, 1, 3);
    V acc[kMR][NV];
    FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::Zero(df);
    micro_tile<kMR, NV, 1, kDimBlock>(columns_of(job) + dim / kDimBlock * kTileStride + dim % kDimBlock, 8 * kDimBlock,
                                      job.weights, columns / 8, acc, prefetcher);
    FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) {
      float* x = o + (t * NV + v) * kLanes;
      hn::Store(hn::Add(acc[t][v], hn::Load(df, x)), df, x);
    }
  }
}

template <TileMode kMode, int MR, int NV>
HWY_NOINLINE void run_panel(const TileJob& job, Panel panel, Prefetcher& prefetcher) {
  HWY_ALIGN float tile_l[NV * kLanes] = {};
  panel.tile_l = tile_l;
  int j = 0;
  for (; j + MR <= job.columns; j += MR) score_tile<kMode, MR, NV, false>(job, panel, j, MR, prefetcher);
  if (j < job.columns) {
    score_tile<kMode, MR, NV, true>(job, panel, j, job.columns - j, prefetcher);
    j += MR;
  }
  if (!job.in_loss) return;
  const int64_t columns = round_up(job.columns, 8);
  for (int64_t i = int64_t{j} * NV * kLanes; i < columns * NV * kLanes; ++i) job.weights[i] = 0;
  for (int v = 0; v < NV; ++v) {
    float* l = panel.l + v * kLanes;
    hn::Store(hn::Add(hn::Load(df, l), hn::Load(df, tile_l + v * kLanes)), df, l);
  }
  if (job.sums) add_sums<NV>(job, panel, columns, prefetcher);
}

template <int MR, int NV>
void run_panel(const TileJob& job, const Panel& panel, Prefetcher& prefetcher) {
  switch (job.mode) {
    case TileMode::kPlain: return run_panel<TileMode::kPlain, MR, NV>(job, panel, prefetcher);
    case TileMode::kMixed: return run_panel<TileMode::kMixed, MR, NV>(job, panel, prefetcher);
    case TileMode::kUnion: return run_panel<TileMode::kUnion, MR, NV>(job, panel, prefetcher);
  }
}

// Micro-tile steps of the whole tile, a lower bound: they pace the prefetches.
int64_t count_steps(const TileJob& job) {
  int64_t steps = 0;
  for (int p = 0; p < job.panels.count(); ++p) {
    const int mr = job.panels.width(p) == 2 ? kMR2 : kMR;
    steps += job.columns / mr * (job.d_padded / 8);
    if (job.sums && job.in_loss) steps += job.d_padded / kMR * (job.columns / 8);
  }
  return steps;
}

}  // namespace

void run_tile(const TileJob& job) {
  Prefetcher prefetcher(job, count_steps(job));
  for (int p = 0; p < job.panels.count(); ++p) {
    const int64_t first = int64_t{job.panels.first_vector(p)} * kLanes;
    const Panel panel{static_cast<const float*>(job.anchors) + first * job.d_padded, job.sums_o + first * job.d_padded,
                      job.m + first, job.l + first, nullptr};
    switch (job.panels.width(p)) {
      case 3: run_panel<kMR, 3>(job, panel, prefetcher); break;
      case 2: run_panel<kMR2, 2>(job, panel, prefetcher); break;
      default: run_panel<kMR, 1>(job, panel, prefetcher); break;
    }
    if (job.mixed || job.unmixed) gather_statistics(job, p);
  }
}

}  // namespace fnce::cpu::FNCE_ISA
