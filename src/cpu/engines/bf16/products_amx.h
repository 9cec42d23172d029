// AMX: tdpbf16ps multiplies 16 x 32 by 32 x 16 bfloat16 values into a 16 x 16 tile of float32. Tiles 0..3 hold the sums
// of 2 row groups x 2 vectors of queries, 4 and 5 the row groups of A, 6 and 7 the vectors of B. FNCE_MODEL names a
// header that defines the tile intrinsics in software, for tests on processors without them.
#pragma once
#include <immintrin.h>
#if defined(FNCE_MODEL)
#include FNCE_MODEL
#endif

#include "cpu/engines/bf16/tile16.h"
#include "cpu/pass/softmax.h"
#include "cpu/simd/prefetch.h"

namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS {
namespace {

constexpr int kWidest = 2;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// The configuration is read-only data: GCC before 13 declares that ldtilecfg reads its first 8 bytes alone, and would
// not store the others of an object on the stack.
constexpr TileConfig kTileConfig;

// Around all tiles of a task: configuring costs as much as dozens of products.
inline void prepare_unit() { _tile_loadconfig(&kTileConfig); }
inline void release_unit() { _tile_release(); }

// Tiles 0..3 += A B: two groups of 16 rows of A, rows `a_bytes` apart, against NV vectors of B, rows `b_bytes` apart.
template <int NV>
HWY_INLINE void multiply_tiles(const void* a, const void* a_next, int64_t a_bytes, const uint32_t* b, int64_t b_bytes) {
  _tile_loadd(4, a, a_bytes);
  _tile_loadd(5, a_next, a_bytes);
  _tile_loadd(6, b, b_bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(2, 5, 6);
  if constexpr (NV == 2) {
    _tile_loadd(7, b + kLanes, b_bytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// Tiles 0..3 to 32 rows of NV vectors.
template <int NV>
HWY_INLINE void store_tiles(float* out, int64_t row_bytes) {
  float* next = out + 16 * NV * kLanes;
  _tile_stored(0, out, row_bytes);
  _tile_stored(2, next, row_bytes);
  if constexpr (NV == 2) {
    _tile_stored(1, out + kLanes, row_bytes);
    _tile_stored(3, next + kLanes, row_bytes);
  }
}

// Keeps what was written before it in front of the loads of tiles: GCC's intrinsics do not say that these read memory.
inline void publish_operands() { asm volatile("" ::: "memory"); }

// Columns 0 .. columns - 1, a multiple of kColumnPadding, into job.raw_scores.
template <int NV>
HWY_INLINE void multiply_scores(const TileJob& job, const Panel& panel, int columns, Prefetcher& prefetcher) {
  const Tile16 tile = tile_at(const_cast<void*>(job.packed), job.d_padded);
  const int64_t stride = row_stride(job.d_padded);
  constexpr int64_t kRow = NV * kLanes * 4;  // bytes of a row of anchors, scores or sums
  publish_operands();
  for (int j = 0; j < columns; j += 32) {
    const uint16_t* rows = tile.rows + j * stride;
    _tile_zero(0);
    _tile_zero(2);
    if constexpr (NV == 2) {
      _tile_zero(1);
      _tile_zero(3);
    }
    for (int64_t c = 0; c < job.d_padded; c += 32) {
      prefetcher.step();
      const auto* q = static_cast<const uint32_t*>(panel.anchors) + c / 2 * NV * kLanes;
      multiply_tiles<NV>(rows + c, rows + 16 * stride + c, stride * 2, q, kRow);
    }
    store_tiles<NV>(job.raw_scores + int64_t{j} * NV * kLanes, kRow);
  }
}

template <int NV>
HWY_INLINE void multiply_sums(const TileJob& job, const Panel& panel, int columns, Prefetcher& prefetcher) {
  const Tile16 tile = tile_at(const_cast<void*>(job.packed), job.d_padded);
  constexpr int64_t kRow = NV * kLanes * 4;
  publish_operands();
  for (int64_t dim = 0; dim < job.d_padded; dim += 32) {
    float *o = panel.o + dim * NV * kLanes, *o_next = o + 16 * NV * kLanes;
    _tile_loadd(0, o, kRow);
    _tile_loadd(2, o_next, kRow);
    if constexpr (NV == 2) {
      _tile_loadd(1, o + kLanes, kRow);
      _tile_loadd(3, o_next + kLanes, kRow);
    }
    for (int j = 0; j < columns; j += 32) {
      prefetcher.step();
      const uint32_t* pairs = tile.pairs + dim * kFeatureStride + j / 2;
      const auto* p = reinterpret_cast<const uint32_t*>(job.weights) + j / 2 * NV * kLanes;
      multiply_tiles<NV>(pairs, pairs + 16 * kFeatureStride, kFeatureStride * 4, p, kRow);
    }
    store_tiles<NV>(o, kRow);
  }
}

inline int64_t steps_of_panel(const TileJob& job, int columns) {
  const int64_t scores = columns / 32 * (job.d_padded / 32);
  return job.sums && job.in_loss ? 2 * scores : scores;
}

// 16 x 16 words: columns become rows.
HWY_INLINE void transpose(const __m512i (&in)[16], uint32_t* out, int64_t stride) {
  __m512i a[16], b[16];
  FNCE_UNROLL for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(in[i], in[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(in[i], in[i + 1]);
  }
  FNCE_UNROLL for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  // b[4 g + c], 128-bit lane l: column 4 l + c of rows 4 g .. 4 g + 3.
  FNCE_UNROLL for (int c = 0; c < 4; ++c) {
    const __m512i even = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88), odd = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd);
    const __m512i even2 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
    const __m512i odd2 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
    _mm512_storeu_si512(out + c * stride, _mm512_shuffle_i32x4(even, even2, 0x88));
    _mm512_storeu_si512(out + (8 + c) * stride, _mm512_shuffle_i32x4(even, even2, 0xdd));
    _mm512_storeu_si512(out + (4 + c) * stride, _mm512_shuffle_i32x4(odd, odd2, 0x88));
    _mm512_storeu_si512(out + (12 + c) * stride, _mm512_shuffle_i32x4(odd, odd2, 0xdd));
  }
}

// tile.pairs: feature after feature, each with its pairs of columns.
template <class Interleave>
HWY_INLINE void pair_columns(const Tile16& tile, int columns, int64_t d_padded, Interleave&& interleave) {
  const int64_t stride = row_stride(d_padded);
  for (int j = 0; j < columns; j += 32)
    for (int64_t c = 0; c < d_padded; c += 16) {
      __m512i words[16];
      FNCE_UNROLL for (int r = 0; r < 16; ++r) {
        alignas(64) uint32_t pair[16];
        const uint16_t* even = tile.rows + (j + 2 * r) * stride + c;
        interleave(even, even + stride, kLanes, pair);
        words[r] = _mm512_load_si512(pair);
      }
      transpose(words, tile.pairs + c * kFeatureStride + j / 2, kFeatureStride);
    }
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS
