// AVX512_BF16: each lane of vdpbf16ps adds the two products of a word to a float32.
#pragma once
#include <immintrin.h>

#include "cpu/engines/bf16/tile16.h"
#include "cpu/pass/softmax.h"
#include "cpu/simd/prefetch.h"

namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS {
namespace {

constexpr int kWidest = 3;
constexpr int kMR = 8;  // 32 registers: 8 x 3 accumulators, 3 of B, 1 broadcast

inline void prepare_unit() {}
inline void release_unit() {}

// acc += sum over `words` of word(t, r) * b[r]; word(t, r) = a[t * row + r * step].
template <int NV>
HWY_INLINE void micro_tile(const uint32_t* HWY_RESTRICT a, int64_t row, int64_t step, const uint32_t* HWY_RESTRICT b,
                           int64_t words, V (&acc)[kMR][NV], Prefetcher& prefetcher) {
  for (int64_t first = 0; first < words; first += 4) {
    prefetcher.step();
    FNCE_UNROLL for (int r = 0; r < 4; ++r) {
      __m512bh vb[NV];
      FNCE_UNROLL for (int v = 0; v < NV; ++v) vb[v] = (__m512bh)_mm512_load_si512(b + (r * NV + v) * kLanes);
      FNCE_UNROLL for (int t = 0; t < kMR; ++t) {
        const auto va = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[t * row + r * step]));
        FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v].raw = _mm512_dpbf16_ps(acc[t][v].raw, va, vb[v]);
      }
      // Keeps later broadcasts below this point: hoisted, they would spill the accumulators.
      asm volatile("" ::: "memory");
    }
    a += 4 * step;
    b += 4 * NV * kLanes;
  }
}

// Columns 0 .. columns - 1, a multiple of kColumnPadding, into job.raw_scores.
template <int NV>
HWY_INLINE void multiply_scores(const TileJob& job, const Panel& panel, int columns, Prefetcher& prefetcher) {
  const Tile16 tile = tile_at(const_cast<void*>(job.packed), job.d_padded);
  const int64_t stride = row_stride(job.d_padded) / 2;
  const auto* rows = reinterpret_cast<const uint32_t*>(tile.rows);
  for (int j = 0; j < columns; j += kMR) {
    V acc[kMR][NV];
    FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::Zero(df);
    micro_tile<NV>(rows + j * stride, stride, 1, static_cast<const uint32_t*>(panel.anchors), job.d_padded / 2, acc,
                   prefetcher);
    store(acc, job.raw_scores + int64_t{j} * NV * kLanes);
  }
}

template <int NV>
HWY_INLINE void multiply_sums(const TileJob& job, const Panel& panel, int columns, Prefetcher& prefetcher) {
  const Tile16 tile = tile_at(const_cast<void*>(job.packed), job.d_padded);
  for (int64_t dim = 0; dim < job.d_padded; dim += kMR) {
    float* o = panel.o + dim * NV * kLanes;
    FNCE_UNROLL for (int t = 0; t < kMR * NV; ++t) __builtin_prefetch(o + t * kLanes, 1, 3);
    V acc[kMR][NV];
    FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) acc[t][v] = hn::Zero(df);
    micro_tile<NV>(tile.pairs + dim, 1, pair_stride(job.d_padded), reinterpret_cast<const uint32_t*>(job.weights),
                   columns / 2, acc, prefetcher);
    FNCE_UNROLL for (int t = 0; t < kMR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) {
      float* x = o + (t * NV + v) * kLanes;
      hn::Store(hn::Add(acc[t][v], hn::Load(df, x)), df, x);
    }
  }
}

// Calls of the prefetcher's step by one panel.
inline int64_t steps_of_panel(const TileJob& job, int columns) {
  const int64_t scores = columns / kMR * (job.d_padded / 8);
  return job.sums && job.in_loss ? scores + job.d_padded / kMR * (columns / 8) : scores;
}

// tile.pairs: pair after pair.
template <class Interleave>
HWY_INLINE void pair_columns(const Tile16& tile, int columns, int64_t d_padded, Interleave&& interleave) {
  const int64_t stride = row_stride(d_padded);
  for (int j = 0; j < columns; j += 2)
    interleave(tile.rows + j * stride, tile.rows + (j + 1) * stride, d_padded,
               tile.pairs + j / 2 * pair_stride(d_padded));
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS
