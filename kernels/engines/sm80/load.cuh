// Global to shared memory: anchors once, column tiles in the order of the pass. A tile's rows are known one tile before
// they are asked for (ColumnInfo), so that no copy waits for an index.
#pragma once
#include "kernels/engines/sm80/products.cuh"

namespace fnce::cuda::sm80 {

// The column tiles of this block's split: step s of the walk is tile first + s. (At most 2 * 2^31 / 16 tiles.)
struct Walk {
  int32_t first, steps;
};
struct ColumnTile {
  int segment;
  int32_t first;  // position in the segment
  int valid;      // columns; the rest of the tile lies beyond the segment
};

FNCE_DEVICE Walk walk_of(const MainParams& p, int64_t split) {
  const int64_t tiles = p.tiles, begin = split * tiles / p.splits;
  return {static_cast<int32_t>(begin), static_cast<int32_t>((split + 1) * tiles / p.splits - begin)};
}

template <class C>
FNCE_DEVICE ColumnTile tile_at(const MainParams& p, const Walk& walk, int step) {
  const int32_t index = walk.first + step;
  int segment = 0;
  FNCE_UNROLL for (int s = 1; s < kMostSegments; ++s) segment += index >= p.first_tile[s];
  const int32_t first = (index - p.first_tile[segment]) * C::kColumns;
  const int32_t left = static_cast<int32_t>(p.segments[segment].count) - first;
  return {segment, first, left < C::kColumns ? left : C::kColumns};
}

// The row that a column of a tile is (-1: none), and its lambda.
struct ColumnInfo {
  int32_t row;
  float lambda;
};

template <class C>
FNCE_DEVICE ColumnInfo column_info(const MainParams& p, const Walk& walk, int step, int column) {
  if (step >= walk.steps) return {-1, 0.0f};
  const ColumnTile tile = tile_at<C>(p, walk, step);
  if (column >= tile.valid) return {-1, 0.0f};
  const int32_t position = tile.first + column;
  // Columns that are not mixed are mixed with nothing of their neighbours.
  if (walk.first + step >= p.mixed_tiles) return {position, 1.0f};
  return {p.tables.order[position], p.tables.lambda[p.lambda_per_row ? position : 0]};
}

template <class C>
FNCE_DEVICE void store_info(const Shared<C>& shared, int step, int column, const ColumnInfo& info) {
  shared.rows(step)[column] = info.row;
  shared.lambda(step)[column] = info.lambda;
}

// Loads a warp's anchors into registers, where warps divide the features.
template <class C>
FNCE_DEVICE void load_anchors(const MainParams& p, const Place<C>& place, Anchors<C>& a) {
  const int64_t first_row = int64_t{blockIdx.x} * C::kRows + place.first_row();
  FNCE_UNROLL for (int k = 0; k < C::kFeatures / 16; ++k) FNCE_UNROLL for (int plane = 0; plane < C::kPlanes; ++plane)
      FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int r = 0; r < 4; ++r) {
    const int64_t row = int64_t{plane} * p.packed.rows + first_row + 16 * mi + anchor_row(place.lane, r);
    const int feature = place.first_feature() + 16 * k + anchor_column(place.lane, r);
    a[k][plane][mi][r] = *reinterpret_cast<const uint32_t*>(p.packed.values + row * C::kD + feature);
  }
}

template <class C>
FNCE_DEVICE void load_anchors(const MainParams& p, const Shared<C>& shared) {
  constexpr int kChunks = C::kD / kChunk, kPieces = C::kPlanes * C::kRows * kChunks;
  const int64_t first_row = int64_t{blockIdx.x} * C::kRows;
  for (int piece = static_cast<int>(threadIdx.x); piece < kPieces; piece += C::kThreads) {
    const int chunk = piece % kChunks, row = piece / kChunks % C::kRows, plane = piece / kChunks / C::kRows;
    const int64_t source = (int64_t{plane} * p.packed.rows + first_row + row) * C::kD + chunk * kChunk;
    cp_async_16(shared.anchors(plane) + tile_offset(row, chunk, C::kD), p.packed.values + source, true);
  }
}

// Copies element by element, zeros beyond D, where rows cannot be copied in 16-byte pieces.
template <class T, int kCount>
FNCE_DEVICE void copy_elements(T* shared, const T* row, int first, int d, bool valid) {
  for (int e = 0; e < kCount; ++e) shared[e] = valid && first + e < d ? row[first + e] : T(0);
}

// This thread's number inside the main loop. Where registers are scarce, what copies derive from it is worked out anew
// in each step: where warps divide the features, and where they have two row tiles of split operands.
template <class C>
FNCE_DEVICE int thread_in_loop() {
  constexpr bool kReadsAgain = C::kDividesFeatures || (C::kPlanes == 2 && C::kMi > 1);
  return kReadsAgain ? thread_read_again() : static_cast<int>(threadIdx.x);
}

// Asks for a half piece of a float32 tile.
template <class C>
FNCE_DEVICE void load_half(const MainParams& p, const Segment& segment, const Shared<C>& shared, const int32_t* rows,
                           const HalfPiece& at) {
  constexpr int kChunks = C::kD / kChunk;
  const int row = rows[at.piece / kChunks], feature = at.piece % kChunks * kChunk + 4 * at.half;
  const int d = static_cast<int>(p.d);
  const float* from = static_cast<const float*>(segment.rows) + (row >= 0 ? int64_t{row} * segment.stride : 0);
  const bool inside = row >= 0 && feature < d;
  if (p.wide)
    cp_async_16(shared.raw(at.piece, at.half), inside ? from + feature : from, inside);
  else
    copy_elements<float, 4>(reinterpret_cast<float*>(shared.raw(at.piece, at.half)), from, feature, d, row >= 0);
}

// Asks for a chunk of a 16-bit tile.
template <class C>
FNCE_DEVICE void load_chunk(const MainParams& p, const Segment& segment, const int32_t* rows, int piece,
                            uint16_t* tile) {
  constexpr int kChunks = C::kD / kChunk;
  const int chunk = piece % kChunks, column = piece / kChunks, feature = chunk * kChunk, row = rows[column];
  const int d = static_cast<int>(p.d);
  uint16_t* to = tile + tile_offset(column, chunk, C::kD);
  const uint16_t* from = static_cast<const uint16_t*>(segment.rows) + (row >= 0 ? int64_t{row} * segment.stride : 0);
  const bool inside = row >= 0 && feature < d;
  if (p.wide)
    cp_async_16(to, inside ? from + feature : from, inside);
  else
    copy_elements<uint16_t, kChunk>(to, from, feature, d, row >= 0);
}

// Asks for a tile: 16-bit elements to their place in a stage, float32 ones to the raw pieces of this warp.
template <class C>
FNCE_DEVICE void load_columns(const MainParams& p, const Walk& walk, const Shared<C>& shared, int step) {
  if (step >= walk.steps) return;
  constexpr int kPieces = C::kColumns * (C::kD / kChunk);
  const Segment& segment = p.segments[tile_at<C>(p, walk, step).segment];
  const int32_t* rows = shared.rows(step);
  const int thread = thread_in_loop<C>(), lane = thread % 32;
  for (int piece = thread; piece < kPieces; piece += C::kThreads) {
    if constexpr (C::kConverts) {
      FNCE_UNROLL for (int turn = 0; turn < 2; ++turn)
          load_half<C>(p, segment, shared, rows, copied_half(piece - lane, turn, lane));
    } else {
      load_chunk<C>(p, segment, rows, piece, shared.columns(step % C::kStages, 0));
    }
  }
}

// This thread's raw pieces, which its warp has copied, become float16, once (kHalfFast) or as h + l (kHalfSplit).
// Returns the largest magnitude seen.
template <class C>
FNCE_DEVICE float convert_columns(const Shared<C>& shared, float extent) {
  constexpr int kChunks = C::kD / kChunk, kPieces = C::kColumns * kChunks;
  constexpr float kScale = 1 << kQueueExponent;
  for (int piece = thread_in_loop<C>(); piece < kPieces; piece += C::kThreads) {
    const int offset = tile_offset(piece / kChunks, piece % kChunks, C::kD);
    uint32_t high[4], low[4];
    FNCE_UNROLL for (int half = 0; half < 2; ++half) {
      const float4 raw = *shared.raw(piece, half);
      FNCE_UNROLL for (int pair = 0; pair < 2; ++pair) {
        const float x = pair == 0 ? raw.x : raw.z, y = pair == 0 ? raw.y : raw.w;
        extent = fmaxf(extent, fmaxf(fabsf(x), fabsf(y)));
        const float sx = x * kScale, sy = y * kScale;
        const uint32_t h = pack_f16(sx, sy);
        high[2 * half + pair] = h;
        if constexpr (C::kPlanes == 2) low[2 * half + pair] = pack_f16(sx - low_f16(h), sy - high_f16(h));
      }
    }
    *reinterpret_cast<uint4*>(shared.columns(0, 0) + offset) = make_uint4(high[0], high[1], high[2], high[3]);
    if constexpr (C::kPlanes == 2)
      *reinterpret_cast<uint4*>(shared.columns(0, 1) + offset) = make_uint4(low[0], low[1], low[2], low[3]);
  }
  return extent;
}

}  // namespace fnce::cuda::sm80
