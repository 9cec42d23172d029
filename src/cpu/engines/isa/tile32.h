// A packed column tile of the float32 products: [d_padded / 8][kColumnTile][8 features], one packing for both GEMMs.
#pragma once
#include <cstdint>

#include "cpu/tiling.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

constexpr int64_t kDimBlock = 8;        // features per packed block: rows are read by scalar broadcast only
constexpr int64_t kColumnPadding = 24;  // whole micro tiles of every panel width
// Floats between two dim blocks: off the multiples of 4096 bytes that would share one L1 set.
constexpr int64_t kTileStride = kColumnTile * kDimBlock + 16;

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
