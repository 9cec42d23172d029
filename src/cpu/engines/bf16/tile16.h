// Packed tiles of the bfloat16 products. A 32-bit word holds two neighbours of the dimension that a product sums over,
// as vdpbf16ps and tdpbf16ps take them:
//   rows      [kColumnTile][row stride] bfloat16: a column after the other, pairs of features lie side by side
//   pairs     the same columns two by two: [kColumnTile / 2][feature] words, for AMX [feature][kColumnTile / 2] words
//   anchors   [d_padded / 2][panel] words, pairs of features
//   weights   [kColumnTile / 2][panel] words, pairs of columns
#pragma once
#include <cstdint>

#include "cpu/simd/simd.h"
#include "cpu/tiling.h"

namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS {

// Defined in the files of this folder, gathered by table.cpp.
int64_t packed_bytes(int64_t d_padded);
bool pack_columns(const PackJob& job);
void pack_anchors(const float* anchors, int64_t d, int rows, int vectors, int64_t d_padded, void* packed);
void run_tile(const TileJob& job);
void enter();
void leave();

namespace {

constexpr int kDimBlock = 32, kColumnPadding = 32;  // the depth of one AMX product
static_assert(kColumnTile % kColumnPadding == 0);

// Strides off the multiples of 4096 bytes that would share one L1 set, whole cache lines.
constexpr int64_t row_stride(int64_t d_padded) { return d_padded + 32; }   // bfloat16
constexpr int64_t pair_stride(int64_t d_padded) { return d_padded + 16; }  // words between two pairs of columns
constexpr int64_t kFeatureStride = kColumnTile / 2;                        // words between two features, AMX

struct Tile16 {
  uint16_t* rows;
  uint32_t* pairs;
};

HWY_INLINE Tile16 tile_at(void* packed, int64_t d_padded) {
  auto* rows = static_cast<uint16_t*>(packed);
  return {rows, reinterpret_cast<uint32_t*>(rows + kColumnTile * row_stride(d_padded))};
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS
