// The shared memory of a block: one table, by which it is sized (shared_bytes) and carved (config.cuh).
//
//   in the loop     elements                                    for
//   anchors         uint16 [plane][row][d]                      warps that do not divide the features
//   stages          uint16 [stage][plane][column][d]            the tiles that the matrix units read
//   raw             float4 [half][piece]                        a float32 tile as it comes (raw_place of index_maps.h)
//   partial_scores  float4 [row warp][feature warp][register / 4][lane]   warps that divide the features
//   column_rows     int32 [slot][column]                        the row of the queue that a column is
//   lambdas         float [slot][column]
//   scale           float [row]                                 log2(e) / temperature in units of the row's raw scores
//   unit            float [row]                                 statistics: raw scores times it are inner products
//   thresholds      float [set][upper, lower][row]              statistics: of the ranks, equation (9)
//
//   at the end      elements                                    for
//   scalars         float [reference, l][row tile][half][lane]  column warps, of which one at a time hands on its sums
//   sums            float [register][lane]
//   statistics      64 bytes [column warp][row]                 statistics, after the sums
//   extents         float [warp]                                float32 queues, last
//
// What is exchanged at the end begins where the anchors do: the loop is over, and its pieces are not read again.
#pragma once
#include <initializer_list>

#include "kernels/engines/sm80/tile.h"

namespace fnce::cuda::sm80 {

// Bytes of shared memory, from `offset` on.
struct Piece {
  int offset, bytes;

  constexpr int end() const { return offset + bytes; }
};

struct SharedPlan {
  Piece anchors, stages, raw, partial_scores, column_rows, lambdas, scale, unit, thresholds;
  Piece scalars, sums, statistics, extents;
  int bytes;
};

constexpr int kRowStatisticsBytes = 64;  // of a row and a column warp

constexpr SharedPlan shared_plan(Operand operand, const Tile& t) {
  constexpr int kHalf = 2, kWord = 4;  // bytes of an element
  const int planes = planes_of(operand), rows = t.rows(), info = info_slots(operand, t) * t.columns * kWord;
  const bool divides = t.divides_features(), exchanges_sums = t.column_warps > 1;
  const auto behind = [](const Piece& before, bool exists, int bytes) {
    return Piece{before.end(), exists ? bytes : 0};
  };
  constexpr Piece kStart = {0, 0};
  SharedPlan plan = {};
  plan.anchors = behind(kStart, !divides, planes * rows * t.d * kHalf);
  plan.stages = behind(plan.anchors, true, t.stages * planes * t.columns * t.d * kHalf);
  plan.raw = behind(plan.stages, converts(operand), t.columns * t.d * kWord);
  plan.partial_scores = behind(plan.raw, divides, t.feature_warps * rows * t.columns * kWord);
  plan.column_rows = behind(plan.partial_scores, true, info);
  plan.lambdas = behind(plan.column_rows, true, info);
  plan.scale = behind(plan.lambdas, true, rows * kWord);
  plan.unit = behind(plan.scale, t.statistics, rows * kWord);
  plan.thresholds = behind(plan.unit, t.statistics, 2 * 2 * rows * kWord);
  // A lane has two numbers of two rows of each row tile, and O of the features.
  const int lanes = 32 * t.row_warps;
  plan.scalars = behind(kStart, exchanges_sums, 2 * 2 * t.mi * lanes * kWord);
  plan.sums = behind(plan.scalars, exchanges_sums, t.mi * (t.d / 8) * 4 * lanes * kWord);
  plan.statistics = behind(kStart, t.statistics, t.column_warps * rows * kRowStatisticsBytes);
  plan.extents = behind(kStart, converts(operand), t.threads() / 32 * kWord);
  for (const Piece& last : {plan.thresholds, plan.sums, plan.statistics, plan.extents})
    if (last.end() > plan.bytes) plan.bytes = last.end();
  return plan;
}

constexpr int64_t shared_bytes(Operand operand, const Tile& t) { return shared_plan(operand, t).bytes; }

// True if a problem of d features can take this tile where a block has `memory` bytes of shared memory.
constexpr bool serves(Operand operand, int index, int64_t d, bool statistics, int64_t memory) {
  const Tile t = tile_of(operand, index);
  return t.d == width_of(d) && (t.statistics || !statistics) && shared_bytes(operand, t) <= memory;
}

}  // namespace fnce::cuda::sm80
