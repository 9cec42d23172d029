// Every tile size of the sm80 family, with its reason; the plan chooses among those that serve a problem. A block works
// on `rows` queries and walks over column tiles of `columns` negatives. Its warps form a grid of row_warps x
// column_warps, each with 16*mi rows and columns/column_warps columns of every tile; or, where D is too wide for that,
// of row_warps x feature_warps, each with 16*mi rows and d/feature_warps features. Shared memory stays within 99 KB,
// what a block may have on compute capability 8.6, 8.9 and 12.0; registers: budget.json.
#pragma once
#include <cstdint>

#include "kernels/contract/params.h"

namespace fnce::cuda::sm80 {

struct Tile {
  int d;   // features of anchors and columns, D rounded up
  int mi;  // m16 row tiles per warp
  int row_warps;
  int column_warps, feature_warps;  // one of them is 1
  int columns;                      // negatives per column tile
  int stages;  // column tiles in flight (16-bit queues); float32 queues have one raw tile in flight and one converted
  bool statistics = false;  // compiled with statistics, too, which take registers: one tile of each D

  constexpr int rows() const { return 16 * mi * row_warps; }
  constexpr int threads() const { return 32 * row_warps * column_warps * feature_warps; }
  constexpr int columns_per_warp() const { return columns / column_warps; }
  constexpr int features_per_warp() const { return d / feature_warps; }
  // Each warp then keeps the anchors of its features, and O of them, in registers, and has a part of every score: parts
  // are added up through shared memory, in order, by each warp for itself.
  constexpr bool divides_features() const { return feature_warps > 1; }
};

// 16-bit queues.
//   32 rows   4 column warps: for few queries, where the queue is read at the speed of memory and the matrix units
//             idle, and for few columns, where larger tiles would leave multiprocessors without a block
//   64 rows   between; from D = 256 on the largest
//   128 rows  at D <= 128, two row tiles a warp: each column fragment read from shared memory serves 32 rows, or shared
//             memory limits. At D = 256 the O of one row tile takes 128 registers, so 64 rows, and warps that divide
//             the features: anchors need no shared memory, statistics find registers.
//   D = 512   O of a row tile would take 256 registers, and 64 rows of anchors 64 KB: warps divide the features. With
//             64 rows anchors and O take 192 registers, which leaves room for 16 columns at a time.
constexpr Tile kHalfTiles[] = {
    {64, 1, 2, 4, 1, 64, 4, true},  {64, 2, 4, 2, 1, 64, 4},  //
    {128, 1, 2, 4, 1, 64, 4},       {128, 1, 4, 2, 1, 64, 4, true}, {128, 2, 4, 2, 1, 64, 4},
    {256, 1, 2, 4, 1, 64, 2},       {256, 1, 4, 1, 2, 32, 4, true},  //
    {512, 1, 2, 1, 4, 32, 2, true}, {512, 1, 4, 1, 2, 16, 4},
};

// float32 queues, split in two float16: twice the bytes of anchors and columns. From D = 256 on, O of all features and
// the split operands need more than 255 registers: warps divide the features.
constexpr Tile kSplitTiles[] = {
    {64, 1, 2, 4, 1, 64, 1, true},  {64, 2, 4, 2, 1, 64, 1},         //
    {128, 1, 2, 4, 1, 64, 1},       {128, 1, 4, 2, 1, 64, 1, true},  //
    {256, 1, 2, 1, 4, 32, 1},       {256, 1, 4, 1, 2, 16, 1, true},  //
    {512, 1, 2, 1, 4, 16, 1, true},
};

// float32 queues, rounded to one float16. The conversion takes registers: half as many columns at 128 rows, and
// features divided from D = 256 on.
constexpr Tile kFastTiles[] = {
    {64, 1, 2, 4, 1, 64, 1, true},  {64, 2, 4, 2, 1, 64, 1},   //
    {128, 1, 2, 4, 1, 64, 1, true}, {128, 2, 4, 2, 1, 32, 1},  //
    {256, 1, 4, 1, 2, 32, 1, true},                            //
    {512, 1, 2, 1, 4, 16, 1, true},
};

// What a kernel is compiled for; the rest of MainParams is read as it runs.
//   kPlain       columns as they are: MoCo, and premixed rows
//   kMixed       mixing of scores
//   kStatistics  either, with the statistics of equation (9)
enum class Variant : int32_t { kPlain, kMixed, kStatistics };

struct Tiles {
  const Tile* first;
  int count;
};
constexpr Tiles tiles_of(Operand operand) {
  if (operand == Operand::kHalfSplit) return {kSplitTiles, static_cast<int>(sizeof kSplitTiles / sizeof(Tile))};
  if (operand == Operand::kHalfFast) return {kFastTiles, static_cast<int>(sizeof kFastTiles / sizeof(Tile))};
  return {kHalfTiles, static_cast<int>(sizeof kHalfTiles / sizeof(Tile))};
}

constexpr Tile tile_of(Operand operand, int index) { return tiles_of(operand).first[index]; }

// So many tiles are asked for ahead of the one that is computed on.
constexpr int tiles_ahead(Operand operand, const Tile& t) { return converts(operand) ? 1 : t.stages - 1; }
// The rows of the queue that a tile's columns are, and their lambdas, are kept for the tile computed on, those on their
// way, and the next.
constexpr int info_slots(Operand operand, const Tile& t) { return tiles_ahead(operand, t) + 2; }

// Largest D of the family; beyond it the plain family serves.
constexpr int64_t kMaxFeatures = 512;

constexpr bool has_statistics(Operand operand, int index) { return tile_of(operand, index).statistics; }

// What D is padded to: 64, 128, 256 or 512. d <= kMaxFeatures.
constexpr int width_of(int64_t d) {
  int width = 64;
  while (width < d) width *= 2;
  return width;
}

}  // namespace fnce::cuda::sm80
