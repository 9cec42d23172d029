// How the CPU backend cuts a problem into panels, tiles and tasks: a function of (N, K, D) and the instruction set,
// never of the number of threads, so that the results are the same bits for any number of them.
//
//   row block     at most 1024 queries; their packed anchors and sums stay in the caches while the columns pass by
//   panel         1 to 3 vectors of queries of a row block: the queries are the lanes of every vector operation
//   column tile   96 columns, mixed and packed once per row block, then used by both GEMMs of every panel
//   chunk         some column tiles, of the queue or of the batch, which each row block sums by themselves; chunks are
//                 merged in order
#pragma once
#include <cstdint>

namespace fnce::cpu {

constexpr int64_t kColumnTile = 96;     // multiple of 16 (a cycle of C) and of every kernel's columns per micro tile
constexpr int64_t kMaxRowBlock = 1024;  // 2 * 1024 * 128 floats = 1 MB, a common L2

constexpr int64_t kMaxChunks = 128;  // of columns per row block, those of the queue and of the batch together

constexpr int64_t round_up(int64_t x, int64_t m) { return (x + m - 1) / m * m; }
constexpr int64_t divide_up(int64_t x, int64_t m) { return (x + m - 1) / m; }

// What the tiles of one way to multiply are made of.
struct TileShape {
  int lanes;           // floats of a vector: queries per lane group
  int widest;          // vectors of the widest panel, 2 or 3
  int dim_block;       // D is padded to a multiple of it
  int column_padding;  // packed columns are padded to a multiple of it, a divisor of kColumnTile
};

// Panels of a row block, in order: `threes` panels of 3 vectors, then `twos` of 2, then `ones` of 1.
struct Panels {
  int threes = 0, twos = 0, ones = 0;
  int count() const { return threes + twos + ones; }
  int vectors() const { return 3 * threes + 2 * twos + ones; }
  // Vectors of panel p, and the vectors before it.
  int width(int p) const { return p < threes ? 3 : p < threes + twos ? 2 : 1; }
  int first_vector(int p) const {
    return p <= threes          ? 3 * p
           : p <= threes + twos ? 3 * threes + 2 * (p - threes)
                                : 3 * threes + 2 * twos + (p - threes - twos);
  }
  // Panels first .. end - 1.
  Panels some(int first, int end) const {
    const auto between = [&](int from, int to) {
      const int low = first > from ? first : from, high = end < to ? end : to;
      return high > low ? high - low : 0;
    };
    return {between(0, threes), between(threes, threes + twos), between(threes + twos, count())};
  }
};

// As many of the widest panels as possible, but never a lone 1-vector panel where two 2-vector ones do.
constexpr Panels panels_of(int64_t vectors, int widest) {
  if (vectors == 1) return Panels{0, 0, 1};
  if (widest == 2) return Panels{0, static_cast<int>(vectors / 2), static_cast<int>(vectors % 2)};
  const int twos = static_cast<int>((3 - vectors % 3) % 3);
  return Panels{static_cast<int>((vectors - 2 * twos) / 3), twos, 0};
}

// Columns that lie in one array, cut into tiles and these into chunks.
struct ColumnCut {
  int64_t columns = 0, tiles = 0, chunks = 0;

  // Column tiles of chunk c: first_tile(c) .. first_tile(c + 1) - 1.
  int64_t first_tile(int64_t c) const { return c * tiles / chunks; }
  int64_t first_column(int64_t c) const { return first_tile(c) * kColumnTile; }
  int64_t end_column(int64_t c) const { return first_column(c + 1) < columns ? first_column(c + 1) : columns; }
};

struct Tiling {
  Tiling(int64_t queries, int64_t queue_columns, int64_t batch_columns, int64_t features, const TileShape& tile_shape,
         int64_t most_rows = kMaxRowBlock);

  int64_t n, d;
  TileShape shape;
  int64_t d_padded;   // D rounded up to whole dim blocks
  int64_t row_block;  // rows of every row block but the last
  int64_t row_blocks;
  ColumnCut queue, batch;
  int64_t chunks;  // those of the queue, then those of the batch

  int64_t rows_of(int64_t block) const { return block + 1 < row_blocks ? row_block : n - block * row_block; }
  Panels panels(int64_t block) const { return panels_of(divide_up(rows_of(block), shape.lanes), shape.widest); }
  // Rows of a row block rounded up to whole vectors.
  int64_t padded_rows(int64_t block) const { return int64_t{panels(block).vectors()} * shape.lanes; }
  int64_t max_padded_rows() const { return padded_rows(0); }
  int64_t tasks() const { return row_blocks * chunks; }
  int64_t column_tiles() const { return queue.tiles + batch.tiles; }
  bool is_batch(int64_t c) const { return c >= queue.chunks; }
  const ColumnCut& cut(int64_t c) const { return is_batch(c) ? batch : queue; }
  // Columns first_column(c) .. end_column(c) - 1 of their array belong to chunk c.
  int64_t first_column(int64_t c) const { return cut(c).first_column(c - (is_batch(c) ? queue.chunks : 0)); }
  int64_t end_column(int64_t c) const { return cut(c).end_column(c - (is_batch(c) ? queue.chunks : 0)); }
  int64_t columns_of(int64_t c) const { return end_column(c) - first_column(c); }
};

}  // namespace fnce::cpu
