// The plain main kernel's data: what a block keeps in shared memory, and how it gets there. A block of 128 threads
// works on kRows queries and walks over tiles of kColumns negatives, their features kChunk at a time, all in float32.
#pragma once
#include "core/columns.h"
#include "kernels/contract/platform.cuh"
#include "kernels/engines/plain/kernels.h"
#include "kernels/pass/masks.cuh"
#include "kernels/rows/elements.cuh"
#include "math/lse.h"
#include "math/stats.h"

namespace fnce::cuda::plain {

constexpr int kThreads = 128;
constexpr int kWarpRows = kRows / (kThreads / 32);  // rows whose softmax a warp does
constexpr int kChunk = 32;                          // features in shared memory at a time
constexpr int kColumnStride = kChunk + 1;           // no two lanes in one bank, whichever way the tile is read
constexpr int kScoreStride = kColumns + 1;

// What of a column is not finite, Shared.bad.
constexpr uint32_t kBadRow = 1, kBadLambda = 2;

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
  int32_t rows[kColumns];  // row of each column in its segment
  uint32_t bad[kColumns];  // kBadRow | kBadLambda
  ColumnMask masks[kColumns];
  float scale_factor[kRows];  // what a tile multiplies the sums before it by
  RunningRow state[kRows];
};

// Columns [first, first + columns) of a segment, in the order of the pass.
struct ColumnTile {
  const Segment& segment;
  int64_t first;
  int columns;
  bool mixes, is_union;  // their scores are mixed, and count as they are as well
};

FNCE_DEVICE int64_t tiles_of(const Segment& segment) { return (segment.count + kColumns - 1) / kColumns; }

FNCE_DEVICE ColumnTile tile_at(const MainParams& p, int64_t index) {
  int s = 0;
  while (s + 1 < p.segment_count && index >= tiles_of(p.segments[s])) index -= tiles_of(p.segments[s++]);
  const int64_t first = index * kColumns, rest = p.segments[s].count - first;
  const bool mixes = p.mix && s == 0;
  return {p.segments[s], first, static_cast<int>(rest < kColumns ? rest : kColumns), mixes, mixes && p.is_union};
}

// Which rows the tile's columns are, and how their scores are mixed.
FNCE_DEVICE void list_columns(const MainParams& p, const ColumnTile& tile, Shared& shared) {
  for (int j = static_cast<int>(threadIdx.x); j < tile.columns; j += kThreads) {
    const int64_t position = tile.first + j;
    shared.bad[j] = 0;
    shared.rows[j] = tile.mixes ? p.tables.order[position] : static_cast<int32_t>(position);
    if (p.masked) shared.masks[j] = column_mask(tile.segment, shared.rows[j], value_of(p.temperature));
    if (!tile.mixes) continue;
    const float lambda = p.tables.lambda[p.lambda_per_row ? position : 0];
    shared.bad[j] = is_finite(lambda) ? 0 : kBadLambda;
    // Where columns may not count, 0 * NaN must not reach the weights of those that do.
    shared.lambda[j] = p.masked && shared.bad[j] ? 0.0f : lambda;
  }
}

// Features [first, first + kChunk) of the tile, zeros beyond its end. `finite`: for the sums; where rows may not have
// all columns, zeros take the place of what is not finite, of which shared.bad knows by then.
FNCE_DEVICE void stage_columns(const MainParams& p, const ColumnTile& tile, int64_t first, bool finite,
                               Shared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kColumns * kChunk; i += kThreads) {
    const int j = i / kChunk, c = i % kChunk;
    float value = 0.0f;
    if (j < tile.columns && first + c < p.d)
      value = load_element(tile.segment.rows, shared.rows[j] * tile.segment.stride + first + c, tile.segment.type);
    if (finite && p.masked && !is_finite(value)) value = 0.0f;
    if (!finite && !is_finite(value)) atomicOr(&shared.bad[j], kBadRow);
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
