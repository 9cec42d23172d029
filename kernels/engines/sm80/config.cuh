// One configuration of the main kernel as compile-time numbers, and the block's shared memory.
#pragma once
#include "kernels/engines/sm80/index_maps.h"
#include "kernels/engines/sm80/shared_plan.h"
#include "kernels/pass/statistics.cuh"

namespace fnce::cuda::sm80 {

template <Operand kOperandOf, int kIndex>
struct Config {
  static constexpr Operand kOperand = kOperandOf;
  static constexpr Tile kTile = tile_of(kOperandOf, kIndex);
  static constexpr int kD = kTile.d, kMi = kTile.mi, kColumns = kTile.columns;
  static constexpr int kRowWarps = kTile.row_warps, kColumnWarps = kTile.column_warps,
                       kFeatureWarps = kTile.feature_warps;
  static constexpr bool kDividesFeatures = kTile.divides_features();
  static constexpr int kFeatures = kTile.features_per_warp();  // of a warp's O, and of the scores that it computes
  static constexpr int kRows = kTile.rows(), kThreads = kTile.threads();
  static constexpr int kGroups = kTile.columns_per_warp() / 16;  // groups of 16 columns of a warp's share of a tile
  static constexpr int kPlanes = planes_of(kOperandOf), kStages = kTile.stages;
  static constexpr bool kConverts = converts(kOperandOf);
  static constexpr bool kIsHalf = kOperandOf != Operand::kBfloat;
  static constexpr int kAhead = tiles_ahead(kOperandOf, kTile), kSlots = info_slots(kOperandOf, kTile);
  static constexpr int kAnchorElements = kRows * kD, kColumnElements = kColumns * kD;

  // The softmax reference of a row is raised when a score exceeds it by more than kLazy (base 2), and P is multiplied
  // by 2^kBias, so that float16 holds weights far below the largest. With two weights mixed and a raw one added P'
  // stays below 3 * 2^14. Split weights must keep float32's digits: no laziness, as much bias as fits.
  static constexpr float kLazy = kOperandOf == Operand::kHalfSplit ? 1.0f : 8.0f;
  static constexpr float kBias = !kIsHalf ? 0.0f : kOperandOf == Operand::kHalfSplit ? 13.0f : 6.0f;

  static_assert(kTile.columns_per_warp() % 16 == 0 && kFeatures % 64 == 0 && kD % kFeatures == 0);
  static_assert(kColumnWarps == 1 || kFeatureWarps == 1);
  static_assert(kThreads >= kColumns, "a thread per column fetches its row and lambda");
  static_assert(shared_bytes(kOperandOf, kTile) <= 99 * 1024);
  static_assert(sizeof(RowScores) == kRowStatisticsBytes);
};

// The block's shared memory, carved as shared_plan.h draws it.
template <class C>
struct Shared {
  static constexpr SharedPlan kPlan = shared_plan(C::kOperand, C::kTile);
  unsigned char* base;

  template <class T>
  FNCE_DEVICE_MEMBER T* at(int offset) const {
    return reinterpret_cast<T*>(base + offset);
  }
  FNCE_DEVICE_MEMBER uint16_t* anchors(int plane) const {
    return at<uint16_t>(kPlan.anchors.offset) + plane * C::kAnchorElements;
  }
  FNCE_DEVICE_MEMBER uint16_t* columns(int stage, int plane) const {
    return at<uint16_t>(kPlan.stages.offset) + (stage * C::kPlanes + plane) * C::kColumnElements;
  }
  FNCE_DEVICE_MEMBER float4* raw(int piece, int half) const {
    return at<float4>(kPlan.raw.offset) + raw_place(piece, half, C::kColumnElements / kChunk);
  }
  FNCE_DEVICE_MEMBER float4* partial_scores(int row_warp, int feature_warp) const {
    constexpr int kEach = C::kMi * C::kGroups * 2 * 32;
    return at<float4>(kPlan.partial_scores.offset) + (row_warp * C::kFeatureWarps + feature_warp) * kEach;
  }
  // The ColumnInfo (load.cuh) of a step's tile lies here.
  FNCE_DEVICE_MEMBER int32_t* rows(int step) const {
    return at<int32_t>(kPlan.column_rows.offset) + slot(step) * C::kColumns;
  }
  FNCE_DEVICE_MEMBER float* lambda(int step) const {
    return at<float>(kPlan.lambdas.offset) + slot(step) * C::kColumns;
  }
  // These are read where they are needed, because registers are scarcer.
  FNCE_DEVICE_MEMBER float* scale() const { return at<float>(kPlan.scale.offset); }
  FNCE_DEVICE_MEMBER float* unit() const { return at<float>(kPlan.unit.offset); }
  FNCE_DEVICE_MEMBER float* upper(int set) const { return at<float>(kPlan.thresholds.offset) + 2 * set * C::kRows; }
  FNCE_DEVICE_MEMBER float* lower(int set) const { return upper(set) + C::kRows; }
  FNCE_DEVICE_MEMBER float* scalars() const { return at<float>(kPlan.scalars.offset); }
  FNCE_DEVICE_MEMBER float* sums() const { return at<float>(kPlan.sums.offset); }
  FNCE_DEVICE_MEMBER RowScores* statistics() const { return at<RowScores>(kPlan.statistics.offset); }
  FNCE_DEVICE_MEMBER float* extents() const { return at<float>(kPlan.extents.offset); }
  FNCE_DEVICE_MEMBER static int slot(int step) { return step % C::kSlots; }
};

// What a thread is: its warp's place in the grid of warps, and its lane.
template <class C>
struct Place {
  int lane, row_warp, column_warp, feature_warp;
  FNCE_DEVICE_MEMBER static Place of(int thread) {
    const int warp = thread / 32, column = warp / C::kRowWarps;
    return {thread % 32, warp % C::kRowWarps, C::kDividesFeatures ? 0 : column, C::kDividesFeatures ? column : 0};
  }
  FNCE_DEVICE_MEMBER int first_row() const { return row_warp * 16 * C::kMi; }            // in the block
  FNCE_DEVICE_MEMBER int first_column() const { return column_warp * 16 * C::kGroups; }  // in the tile
  FNCE_DEVICE_MEMBER int first_feature() const { return feature_warp * C::kFeatures; }
  // The row in the block that the accumulators of register half h of row tile mi belong to.
  FNCE_DEVICE_MEMBER int row(int mi, int h) const { return first_row() + 16 * mi + accumulator_row(lane, 2 * h); }
};

}  // namespace fnce::cuda::sm80
