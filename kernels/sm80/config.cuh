// One configuration of the main kernel as compile-time numbers, and the block's shared memory.
#pragma once
#include "common/platform.cuh"
#include "sm80/index_maps.h"
#include "sm80/tile.h"

namespace fnce::cuda::sm80 {

template <Operand kOperandOf, int kIndex>
struct Config {
  static constexpr Operand kOperand = kOperandOf;
  static constexpr Tile kTile = tile_of(kOperandOf, kIndex);
  static constexpr int kD = kTile.d, kDOut = kTile.d_out, kMi = kTile.mi, kKeys = kTile.keys;
  static constexpr int kRowWarps = kTile.row_warps, kKeyWarps = kTile.key_warps;
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

  static_assert(kTile.keys_per_warp() % 16 == 0 && kD % 64 == 0 && kDOut % 16 == 0 && kD % kDOut == 0);
  static_assert(kThreads >= kKeys, "a thread per key fetches its row and lambda");
  static_assert(shared_bytes(kOperandOf, kTile) <= 99 * 1024);
};

template <class C>
struct Shared {
  unsigned char* base;

  FNCE_DEVICE_MEMBER uint16_t* anchors(int plane) const {
    return reinterpret_cast<uint16_t*>(base) + plane * C::kAnchorElements;
  }
  FNCE_DEVICE_MEMBER uint16_t* keys(int stage, int plane) const {
    return anchors(C::kPlanes) + (stage * C::kPlanes + plane) * C::kKeyElements;
  }
  // A float32 tile as it comes, in pieces that belong to one thread each.
  FNCE_DEVICE_MEMBER float* raw() const { return reinterpret_cast<float*>(keys(C::kStages, 0)); }
  // Rows and lambdas of the keys of a step's tile (load.cuh, KeyInfo).
  FNCE_DEVICE_MEMBER int32_t* rows(int step) const {
    return reinterpret_cast<int32_t*>(raw() + (C::kConverts ? C::kKeyElements : 0)) + slot(step) * C::kKeys;
  }
  FNCE_DEVICE_MEMBER float* lambda(int step) const {
    return reinterpret_cast<float*>(rows(0) + C::kSlots * C::kKeys) + slot(step) * C::kKeys;
  }
  // Of each row: log2(e) / temperature in units of its raw scores. Read where it is needed: registers are scarcer.
  FNCE_DEVICE_MEMBER float* scale() const { return lambda(0) + C::kSlots * C::kKeys; }
  FNCE_DEVICE_MEMBER static int slot(int step) { return step % C::kSlots; }
};

// What a thread is: its warp's place in the grid of warps, and its lane.
template <class C>
struct Place {
  int lane, row_warp, key_warp;
  FNCE_DEVICE_MEMBER static Place here() {
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
    return {thread % 32, warp % C::kRowWarps, warp / C::kRowWarps};
  }
  FNCE_DEVICE_MEMBER int first_row() const { return row_warp * 16 * C::kMi; }      // in the block
  FNCE_DEVICE_MEMBER int first_key() const { return key_warp * 16 * C::kGroups; }  // in the tile
  // Row in the block of accumulators with register half h of row tile mi.
  FNCE_DEVICE_MEMBER int row(int mi, int h) const { return first_row() + 16 * mi + accumulator_row(lane, 2 * h); }
};

}  // namespace fnce::cuda::sm80
