// One configuration of the main kernel as compile-time numbers, and the block's shared memory.
#pragma once
#include "kernels/contract/platform.cuh"
#include "kernels/engines/sm80/index_maps.h"
#include "kernels/engines/sm80/tile.h"

namespace fnce::cuda::sm80 {

template <Operand kOperandOf, int kIndex>
struct Config {
  static constexpr Operand kOperand = kOperandOf;
  static constexpr Tile kTile = tile_of(kOperandOf, kIndex);
  static constexpr int kD = kTile.d, kMi = kTile.mi, kKeys = kTile.keys;
  static constexpr int kRowWarps = kTile.row_warps, kKeyWarps = kTile.key_warps, kFeatureWarps = kTile.feature_warps;
  static constexpr bool kDividesFeatures = kTile.divides_features();
  static constexpr int kFeatures = kTile.features_per_warp();  // of a warp's O, and of the scores that it computes
  static constexpr int kRows = kTile.rows(), kThreads = kTile.threads();
  static constexpr int kGroups = kTile.keys_per_warp() / 16;  // groups of 16 keys of a warp's share of a tile
  static constexpr int kPlanes = planes_of(kOperandOf), kStages = kTile.stages;
  static constexpr bool kConverts = converts(kOperandOf);
  static constexpr bool kIsHalf = kOperandOf != Operand::kBfloat;
  static constexpr int kAhead = tiles_ahead(kOperandOf, kTile), kSlots = info_slots(kOperandOf, kTile);
  static constexpr int kScalarBytes = static_cast<int>(scalar_bytes(kTile));
  static constexpr int kAnchorElements = kRows * kD, kKeyElements = kKeys * kD;

  // The softmax reference of a row is raised when a score exceeds it by more than kLazy (base 2), and P is multiplied by
  // 2^kBias, so that float16 holds weights far below the largest. With two weights mixed and a raw one added P' stays below
  // 3 * 2^14. Split weights must keep float32's digits: no laziness, as much bias as fits.
  static constexpr float kLazy = kOperandOf == Operand::kHalfSplit ? 1.0f : 8.0f;
  static constexpr float kBias = !kIsHalf ? 0.0f : kOperandOf == Operand::kHalfSplit ? 13.0f : 6.0f;

  static_assert(kTile.keys_per_warp() % 16 == 0 && kFeatures % 64 == 0 && kD % kFeatures == 0);
  static_assert(kKeyWarps == 1 || kFeatureWarps == 1);
  static_assert(kThreads >= kKeys, "a thread per key fetches its row and lambda");
  static_assert(shared_bytes(kOperandOf, kTile) <= 99 * 1024);
};

template <class C>
struct Shared {
  static constexpr int kTileBytes =
      static_cast<int>(anchor_bytes(C::kOperand, C::kTile) + raw_bytes(C::kOperand, C::kTile) +
                       C::kStages * stage_bytes(C::kOperand, C::kTile));
  static constexpr int kPartialBytes = static_cast<int>(partial_score_bytes(C::kTile));
  unsigned char* base;

  // None where they are in registers.
  FNCE_DEVICE_MEMBER uint16_t* anchors(int plane) const {
    return reinterpret_cast<uint16_t*>(base) + plane * C::kAnchorElements;
  }
  FNCE_DEVICE_MEMBER uint16_t* keys(int stage, int plane) const {
    return anchors(C::kDividesFeatures ? 0 : C::kPlanes) + (stage * C::kPlanes + plane) * C::kKeyElements;
  }
  // A float32 tile as it comes: halves of pieces of 8 elements, the first halves first (raw_place of index_maps.h).
  FNCE_DEVICE_MEMBER float4* raw(int piece, int half) const {
    return reinterpret_cast<float4*>(keys(C::kStages, 0)) + raw_place(piece, half, C::kKeyElements / kChunk);
  }
  // A feature warp's share of the scores, [row warp][feature warp][register / 4][lane].
  FNCE_DEVICE_MEMBER float4* partial_scores(int row_warp, int feature_warp) const {
    constexpr int kEach = C::kMi * C::kGroups * 2 * 32;
    return reinterpret_cast<float4*>(base + kTileBytes) + (row_warp * C::kFeatureWarps + feature_warp) * kEach;
  }
  // Rows and lambdas of the keys of a step's tile (load.cuh, KeyInfo).
  FNCE_DEVICE_MEMBER int32_t* rows(int step) const {
    return reinterpret_cast<int32_t*>(base + kTileBytes + kPartialBytes) + slot(step) * C::kKeys;
  }
  FNCE_DEVICE_MEMBER float* lambda(int step) const {
    return reinterpret_cast<float*>(rows(0) + C::kSlots * C::kKeys) + slot(step) * C::kKeys;
  }
  // Of each row: log2(e) / temperature in units of its raw scores. Read where it is needed: registers are scarcer.
  FNCE_DEVICE_MEMBER float* scale() const { return lambda(0) + C::kSlots * C::kKeys; }
  // Of each row, with statistics: what raw scores times it are inner products; rank thresholds of equation (9), both sets.
  FNCE_DEVICE_MEMBER float* unit() const { return scale() + C::kRows; }
  FNCE_DEVICE_MEMBER float* upper(int set) const { return unit() + (1 + 2 * set) * C::kRows; }
  FNCE_DEVICE_MEMBER float* lower(int set) const { return unit() + (2 + 2 * set) * C::kRows; }
  FNCE_DEVICE_MEMBER static int slot(int step) { return step % C::kSlots; }
};

// What a thread is: its warp's place in the grid of warps, and its lane.
template <class C>
struct Place {
  int lane, row_warp, key_warp, feature_warp;
  FNCE_DEVICE_MEMBER static Place of(int thread) {
    const int warp = thread / 32, column = warp / C::kRowWarps;
    return {thread % 32, warp % C::kRowWarps, C::kDividesFeatures ? 0 : column, C::kDividesFeatures ? column : 0};
  }
  FNCE_DEVICE_MEMBER int first_row() const { return row_warp * 16 * C::kMi; }      // in the block
  FNCE_DEVICE_MEMBER int first_key() const { return key_warp * 16 * C::kGroups; }  // in the tile
  FNCE_DEVICE_MEMBER int first_feature() const { return feature_warp * C::kFeatures; }
  // Row in the block of accumulators with register half h of row tile mi.
  FNCE_DEVICE_MEMBER int row(int mi, int h) const { return first_row() + 16 * mi + accumulator_row(lane, 2 * h); }
};

}  // namespace fnce::cuda::sm80
