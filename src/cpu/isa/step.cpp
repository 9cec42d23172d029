// One key tile against the panels of a row block: scores, mixing, exponentials and sums in one pass, equations (3), (7), (8).
//
// Queries lie in the lanes of both GEMMs, C[MR][NV vectors] += sum_k broadcast(A(r, k)) * B[k][NV vectors]:
//   scores   S^T[key][query]  k = feature, A = z[key r][feature k], B = the packed queries
//   sums     O^T[feature][query]  k = key, A = z[key k][feature r], B = P, which is the first GEMM's output as it stands
// The softmax is lane-wise work on the first one's accumulators: no horizontal operation, one store of P.
#include "cpu/isa/simd.h"
#include "cpu/isa/stats.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

#if HWY_MAX_BYTES == 64   // AVX-512
constexpr int kMR = 8;    // 32 registers: 8 x 3 accumulators, 3 of B, 1 broadcast
constexpr int kMR2 = 12;  // keys per micro tile for 2-vector panels
#else
constexpr int kMR = 4;  // 16 registers: 4 x 3 accumulators, 3 of B, 1 broadcast
constexpr int kMR2 = 4;
#endif
static_assert(kKeyPadding % kMR == 0 && kKeyPadding % kMR2 == 0 && kKeyPadding % 8 == 0);
static_assert(kKeyTile % kKeyPadding == 0 && kDimBlock % kMR == 0);

// A running maximum is raised only when a score exceeds it by this much (base 2): rescaling is rare, and 2^40 times a sum of
// 2^31 terms is far inside float32.
constexpr float kLazy = 40.0f;

// Spreads the prefetches of the next tile's rows evenly over the micro tiles of this one, up to 512 bytes at a time, so that
// lines come neither late nor so early that they are gone again.
class Prefetcher {
 public:
  Prefetcher(const TileJob& job, int64_t steps)
      : base_(reinterpret_cast<const char*>(job.queue)),
        rows_(job.next_rows),
        count_(job.next_count),
        row_bytes_(job.d * 4),
        pieces_((row_bytes_ + kPiece - 1) / kPiece),
        due_per_step_(count_ * pieces_),
        steps_(steps > 0 ? steps : 1) {}

  HWY_INLINE void step() {
    credit_ += due_per_step_;
    if (HWY_UNLIKELY(credit_ >= steps_) && row_ < count_) fetch_piece();
  }

 private:
  static constexpr int64_t kLine = 64, kPiece = 8 * kLine;

  HWY_INLINE void fetch_piece() {
    credit_ -= steps_;
    if (piece_ == 0 && row_ % 32 == 0) touch_ahead();
    const char* row = base_ + rows_[row_] * row_bytes_;
    const char* p = row + piece_ * kPiece;
    const int64_t left = row_bytes_ - piece_ * kPiece;
    if (HWY_LIKELY(left >= kPiece)) {
      for (int64_t line = 0; line < kPiece; line += kLine) __builtin_prefetch(p + line, 0, 2);
    } else {
      for (int64_t line = 0; line < left; line += kLine) __builtin_prefetch(p + line, 0, 2);
    }
    if (++piece_ < pieces_) return;
    // A row that does not start on a line ends on one more.
    __builtin_prefetch(row + row_bytes_ - 1, 0, 2);
    piece_ = 0;
    ++row_;
  }

  // First lines of the next 32 random rows: their page walks overlap.
  HWY_INLINE void touch_ahead() {
    for (int64_t i = row_; i < row_ + 32 && i < count_; ++i) __builtin_prefetch(base_ + rows_[i] * row_bytes_, 0, 2);
  }

  const char* base_;
  const int32_t* rows_;
  int64_t count_, row_bytes_, pieces_, due_per_step_, steps_;
  int64_t row_ = 0, piece_ = 0, credit_ = 0;
};

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
      // Keeps later broadcasts below this point: hoisted, they would spill the accumulators.
      asm volatile("" ::: "memory");
    }
    a += a_block;
    b += 8 * NV * kLanes;
  }
}

// What one panel of the job works on.
struct Panel {
  const float* q;
  float *o, *m, *l;
  float* tile_l;  // l of this tile alone: a short sum first, then one addition to the long one
};

// Some score exceeds the maximum by more than kLazy: raise it for those lanes, rescale what has been summed with the old one.
template <int NV>
HWY_NOINLINE void raise_maximum(const TileJob& job, const Panel& panel, const float* top, int keys_done) {
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
  rescale(job.weights, keys_done);
  if (job.sums) rescale(panel.o, job.d_padded);
}

template <int MR, int NV>
HWY_INLINE void update_maximum(const TileJob& job, const Panel& panel, const V (&s)[MR][NV], int keys_done) {
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
  raise_maximum<NV>(job, panel, tops, keys_done);
}

// s -> p = 2^(scale*s - m) in place, added to `sum`; keys from `valid` on count nothing. The product is rounded as the
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

// MR keys x NV vectors of queries: scores, then P and l.
template <TileMode kMode, int MR, int NV, bool kTail>
HWY_INLINE void score_tile(const TileJob& job, const Panel& panel, int j, int valid, Prefetcher& prefetcher) {
  V acc[MR][NV];
  FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::Zero(df);
  micro_tile<MR, NV, kDimBlock, 1>(job.packed + j * kDimBlock, job.stride, panel.q, job.d_padded / 8, acc, prefetcher);
  if (job.raw_scores) store(acc, job.raw_scores + int64_t{j} * NV * kLanes);
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
HWY_INLINE void add_sums(const TileJob& job, const Panel& panel, int64_t keys, Prefetcher& prefetcher) {
  for (int64_t dim = 0; dim < job.d_padded; dim += kMR) {
    float* o = panel.o + dim * NV * kLanes;
    FNCE_UNROLL for (int t = 0; t < kMR * NV; ++t) __builtin_prefetch(o + t * kLanes, 1, 3);
    V acc[kMR][NV];
    FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::Zero(df);
    micro_tile<kMR, NV, 1, kDimBlock>(job.packed + dim / kDimBlock * job.stride + dim % kDimBlock, 8 * kDimBlock,
                                      job.weights, keys / 8, acc, prefetcher);
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
  for (; j + MR <= job.keys; j += MR) score_tile<kMode, MR, NV, false>(job, panel, j, MR, prefetcher);
  if (j < job.keys) {
    score_tile<kMode, MR, NV, true>(job, panel, j, job.keys - j, prefetcher);
    j += MR;
  }
  if (!job.in_loss) return;
  const int64_t keys = round_up(job.keys, 8);
  for (int64_t i = int64_t{j} * NV * kLanes; i < keys * NV * kLanes; ++i) job.weights[i] = 0;
  for (int v = 0; v < NV; ++v) {
    float* l = panel.l + v * kLanes;
    hn::Store(hn::Add(hn::Load(df, l), hn::Load(df, tile_l + v * kLanes)), df, l);
  }
  if (job.sums) add_sums<NV>(job, panel, keys, prefetcher);
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
    steps += job.keys / mr * (job.d_padded / 8);
    if (job.sums && job.in_loss) steps += job.d_padded / kMR * (job.keys / 8);
  }
  return steps;
}

}  // namespace

void run_tile(const TileJob& job) {
  Prefetcher prefetcher(job, count_steps(job));
  for (int p = 0; p < job.panels.count(); ++p) {
    const int64_t first = int64_t{job.panels.first_vector(p)} * kLanes;
    const Panel panel{job.queries + first * job.d_padded, job.sums_o + first * job.d_padded, job.m + first,
                      job.l + first, nullptr};
    switch (job.panels.width(p)) {
      case 3: run_panel<kMR, 3>(job, panel, prefetcher); break;
      case 2: run_panel<kMR2, 2>(job, panel, prefetcher); break;
      default: run_panel<kMR, 1>(job, panel, prefetcher); break;
    }
    if (job.mixed || job.unmixed) gather_statistics(job, p);
  }
  if (job.mixed) job.mixed->count += job.keys * (job.mode == TileMode::kUnion ? 2 : 1);
  if (job.unmixed) job.unmixed->count += job.keys;
}

}  // namespace fnce::cpu::FNCE_ISA
