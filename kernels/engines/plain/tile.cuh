// The plain main kernel's data: what a block keeps in shared memory, and how it gets there. A block of 128 threads
// works on kRows queries and walks over tiles of kColumns negatives, their features kChunk at a time, all in float32.
#pragma once
#include "core/columns.h"
#include "kernels/contract/platform.cuh"
#include "kernels/engines/plain/kernels.h"
#include "kernels/rows/elements.cuh"
#include "math/lse.h"
#include "math/stats.h"

namespace fnce::cuda::plain {

constexpr int kThreads = 128;
constexpr int kWarpRows = kRows / (kThreads / 32);  // rows whose softmax a warp does
constexpr int kChunk = 32;                          // features in shared memory at a time
constexpr int kColumnStride = kChunk + 1;           // no two lanes in one bank, whichever way the tile is read
constexpr int kScoreStride = kColumns + 1;

// Running results of one row; log-sum-exps in base 2.
struct RunningRow {
  RowColumns met;
  LogSum<float> loss, unmixed;
  RowStats<float> sets[2];  // mixed, unmixed
};

struct Shared {
  float anchors[kRows * kChunk];
  float columns[kColumns * kColumnStride];
  float scores[kRows * kScoreStride];   // raw scores, then the weights P' of raw rows
  float weights[kRows * kScoreStride];  // P of the mixed columns
  float lambda[kColumns];
  int32_t rows[kColumns];     // row of each column in its segment
  uint32_t bad[kColumns];     // not 0: the column or its lambda is not finite
  float scale_factor[kRows];  // what a tile multiplies the sums before it by
  RunningRow state[kRows];
};

// Columns [first, first + columns) of a segment, in the order of the pass.
struct ColumnTile {
  const Segment& segment;
  int64_t first;
  int columns;
};

FNCE_DEVICE int64_t tiles_of(const Segment& segment) { return (segment.count + kColumns - 1) / kColumns; }

FNCE_DEVICE ColumnTile tile_at(const MainParams& p, int64_t index) {
  int s = 0;
  while (s + 1 < p.segment_count && index >= tiles_of(p.segments[s])) index -= tiles_of(p.segments[s++]);
  const int64_t first = index * kColumns, rest = p.segments[s].count - first;
  return {p.segments[s], first, static_cast<int>(rest < kColumns ? rest : kColumns)};
}

// Which rows the tile's columns are, and how their scores are mixed.
FNCE_DEVICE void list_columns(const MainParams& p, const ColumnTile& tile, Shared& shared) {
  for (int j = static_cast<int>(threadIdx.x); j < tile.columns; j += kThreads) {
    const int64_t position = tile.first + j;
    shared.bad[j] = 0;
    shared.rows[j] = p.mix ? p.tables.order[position] : static_cast<int32_t>(position);
    if (!p.mix) continue;
    shared.lambda[j] = p.tables.lambda[p.lambda_per_row ? position : 0];
    shared.bad[j] = !is_finite(shared.lambda[j]);
  }
}

// Features [first, first + kChunk) of the tile, zeros beyond its end.
FNCE_DEVICE void stage_columns(const MainParams& p, const ColumnTile& tile, int64_t first, Shared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kColumns * kChunk; i += kThreads) {
    const int j = i / kChunk, c = i % kChunk;
    float value = 0.0f;
    if (j < tile.columns && first + c < p.d)
      value = load_element(tile.segment.rows, shared.rows[j] * tile.segment.stride + first + c, tile.segment.type);
    if (!is_finite(value)) atomicOr(&shared.bad[j], 1u);
    shared.columns[j * kColumnStride + c] = value;
  }
}

FNCE_DEVICE void stage_anchors(const MainParams& p, int64_t first_row, int64_t first, Shared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunk; i += kThreads) {
    const int64_t row = first_row + i / kChunk, c = first + i % kChunk;
    shared.anchors[i] = row < p.n && c < p.d ? p.anchor[row * p.d + c] : 0.0f;
  }
}

}  // namespace fnce::cuda::plain
