#include "cpu/tiling.h"

#include <algorithm>
#include <bit>

namespace fnce::cpu {
namespace {

constexpr int64_t kMinTilesPerChunk = 5;      // below, merging a chunk is no small part of computing it
constexpr int64_t kMaxChunkBytes = 32 << 20;  // of sums per chunk x row, all chunks together
constexpr int64_t kMaxChunksManyRows = 32, kMaxChunksFewRows = 64, kFewRows = 64;
constexpr int64_t kMostCounted =
    1 << 29;  // of a chunk: a row counts its columns, twice as many with a union, in 32 bits

int64_t choose_chunks(int64_t n, int64_t d_padded, int64_t column_tiles) {
  if (column_tiles == 0) return 0;
  const int64_t row_bytes = (d_padded + 16) * static_cast<int64_t>(sizeof(float));
  int64_t most = n <= kFewRows ? kMaxChunksFewRows : kMaxChunksManyRows;
  most = std::min({most, column_tiles / kMinTilesPerChunk, kMaxChunkBytes / (n * row_bytes)});
  // Powers of two divide evenly among the usual numbers of threads.
  const int64_t chunks = most < 2 ? 1 : static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(most)));
  return std::max(chunks, divide_up(column_tiles * kColumnTile, kMostCounted));
}

ColumnCut cut_columns(int64_t n, int64_t d_padded, int64_t columns) {
  const int64_t tiles = divide_up(columns, kColumnTile);
  return {columns, tiles, choose_chunks(n, d_padded, tiles)};
}

}  // namespace

Tiling::Tiling(int64_t queries, int64_t queue_columns, int64_t batch_columns, int64_t features,
               const TileShape& tile_shape, int64_t most_rows)
    : n(queries), d(features), shape(tile_shape), d_padded(round_up(features, tile_shape.dim_block)) {
  row_blocks = divide_up(n, most_rows);
  row_block = round_up(divide_up(n, row_blocks), shape.lanes);
  row_blocks = divide_up(n, row_block);
  queue = cut_columns(n, d_padded, queue_columns);
  batch = cut_columns(n, d_padded, batch_columns);
  chunks = queue.chunks + batch.chunks;
}

}  // namespace fnce::cpu
