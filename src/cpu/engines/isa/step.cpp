// The float32 products of a column tile, and the tile's loop (pass/tile.h) with them.
//
// Queries lie in the lanes of both, C[MR][NV vectors] += sum_k broadcast(A(r, k)) * B[k][NV vectors]:
//   scores   S^T[column][query]   k = feature, A = z[column r][feature k], B = the packed anchors
//   sums     O^T[feature][query]  k = column, A = z[column k][feature r], B = P, the weighed scores as they stand
// So the softmax is lane-wise work on the accumulators of the scores: no horizontal operation, one store of P.
#include "cpu/engines/isa/tile32.h"
#include "cpu/pass/tile.h"

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

// sum += a b. With 16 registers a compiler would rather load B again for every product than keep it, and move the sums
// about: three loads for what one does, on a processor that has two or three a cycle.
HWY_INLINE void multiply_add(V a, V b, V& sum) {
#if HWY_ARCH_X86 && HWY_MAX_BYTES == 32
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum.raw) : "x"(a.raw), "x"(b.raw));
#else
  sum = hn::MulAdd(a, b, sum);
#endif
}

// acc += sum over `blocks` groups of 8 k's; A(t, k) = a[t * kRowStep + k * kStep] inside a group, groups `a_block`
// apart.
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
        FNCE_UNROLL for (int v = 0; v < NV; ++v) multiply_add(va, vb[v], acc[t][v]);
      }
      // Keeps later broadcasts below this point: hoisted, they would spill the accumulators. Where these do not fit
      // into the registers anyway (SSE2, which has no fused multiply-add), it would only hold up their loads.
#if HWY_MAX_BYTES > 16 || HWY_ARCH_ARM_A64
      asm volatile("" ::: "memory");
#endif
    }
    a += a_block;
    b += 8 * NV * kLanes;
  }
}

HWY_INLINE const float* columns_of(const TileJob& job) { return static_cast<const float*>(job.packed); }

struct Float32Products {
  using Element = float;
  static constexpr int kWidest = 3, kSumDepth = 8, kColumnsPerWord = 1;
  static constexpr bool kScoresWait = false;  // they are weighed in the registers in which they were summed
  static constexpr int group(int vectors) { return vectors == 2 ? kMR2 : kMR; }

  template <int MR, int NV>
  static HWY_INLINE void scores(const TileJob& job, const Panel& panel, int j, V (&s)[MR][NV], Prefetcher& prefetcher) {
    FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) s[t][v] = hn::Zero(df);
    micro_tile<MR, NV, kDimBlock, 1>(columns_of(job) + j * kDimBlock, kTileStride,
                                     static_cast<const float*>(panel.anchors), job.d_padded / 8, s, prefetcher);
    if (job.mixed || job.unmixed || (job.pairs && job.pairs->m)) store(s, job.raw_scores + int64_t{j} * NV * kLanes);
  }

  template <int MR, int NV>
  static HWY_INLINE void store_weights(const V (&p)[MR][NV], int j, const TileJob& job) {
    store(p, job.weights + int64_t{j} * NV * kLanes);
  }

  template <int NV>
  static HWY_INLINE void multiply_sums(const TileJob& job, const Panel& panel, int columns, Prefetcher& prefetcher) {
    for (int64_t dim = 0; dim < job.d_padded; dim += kMR) {
      float* o = panel.o + dim * NV * kLanes;
      FNCE_UNROLL for (int t = 0; t < kMR * NV; ++t) __builtin_prefetch(o + t * kLanes, 1, 3);
      V acc[kMR][NV];
      FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::Zero(df);
      micro_tile<kMR, NV, 1, kDimBlock>(columns_of(job) + dim / kDimBlock * kTileStride + dim % kDimBlock,
                                        8 * kDimBlock, job.weights, columns / 8, acc, prefetcher);
      FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) {
        float* x = o + (t * NV + v) * kLanes;
        hn::Store(hn::Add(acc[t][v], hn::Load(df, x)), df, x);
      }
    }
  }

  // Micro-tile steps, a lower bound.
  static int64_t steps_of_panel(const TileJob& job, int vectors) {
    const int64_t scores = job.columns / group(vectors) * (job.d_padded / 8);
    return job.sums && job.in_loss ? scores + job.d_padded / kMR * (job.columns / 8) : scores;
  }
};

}  // namespace

void run_tile(const TileJob& job) { run_tile_with<Float32Products>(job); }

}  // namespace fnce::cpu::FNCE_ISA
