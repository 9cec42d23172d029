// The workspace of the CPU backend: sized and carved by one constructor.
#pragma once
#include <cstdint>

#include "core/layout.h"
#include "core/problem.h"
#include "cpu/kernels.h"
#include "cpu/tiling.h"

namespace fnce::cpu {

// The sums of one task: one row block against one chunk of columns.
struct TaskState {
  float *o, *m, *l;     // O in panels [d_padded][panel], m (base 2) and l [padded rows]
  int32_t* columns;     // [padded rows] columns of the loss that each row has met
  int32_t* not_finite;  // [padded rows] not 0: one of them is not finite
  StatsLanes stats[2];  // mixed, unmixed
};

// What one thread works with.
struct ThreadScratch {
  void* packed;
  float *weights, *raw_scores, *pack_row, *lambda;
  int32_t *rows, *partners, *next_rows;  // [kColumnTile] | [kColumnTile] | [2 * kColumnTile]
  // These belong to masks. Each is [kColumnTile], and `probe` is [2 * kColumnTile].
  int32_t *numbers, *partner_numbers, *probe;
  float *bias, *mixed_bias, *limits, *spoiled, *mixed_spoiled;
  uint8_t* blank;
  float* across;  // PairTile.scratch
  PreparedRow row;
  float *lambda_row, *gradient, *factors;
};

// The pieces of one call's workspace; with base = nullptr it only counts bytes().
class Workspace {
 public:
  Workspace(void* base, const Problem& problem, const Tiling& tiling, const TileKernels& tiles, int threads);

  uint64_t bytes() const { return bytes_; }
  // The part that prep_rows works with; a gradient of columns lays its own pass behind it.
  uint64_t rows_bytes() const { return rows_bytes_; }
  TaskState task(int64_t row_block, int64_t chunk) const;
  ThreadScratch thread(int worker) const;

  float *anchors, *pos, *unmixed_pos;        // [N,D], [N], [N]
  void* partial;                             // of the loss
  float *loss_rows, *dtemperature_rows;      // [N]
  void* packed_anchors;                      // row block after row block
  float *upper[2], *lower[2];                // [padded rows of all row blocks] thresholds of the ranks: mixed, unmixed
  float* row_limits[2];                      // likewise: margins above the positive; null without
  int32_t* row_numbers;                      // [padded rows of all row blocks] of their ids; null without a mask
  int64_t *sorted_ids, *sorted_count;        // [N] ids of rows, each once, and [1] how many; null without ids
  void* batch;                               // [C,D] batch columns as they are multiplied, queue_type; null for C = 0
  int32_t* order;                            // [K] row at each position of the pass; null: in the order of the queue
  uint32_t* seen;                            // [K] bits: rows that a given permutation has named; null unless GIVEN
  float *lambda_pos_dims, *lambda_neg_dims;  // [D] sampled per dimension; null otherwise
  float* lambda_neg_rows;                    // [K] sampled per row; null otherwise

 private:
  TaskState carve_task(Carver& carver) const;
  ThreadScratch carve_thread(Carver& carver) const;

  const Tiling& tiling_;
  const uint64_t packed_bytes_;
  unsigned char *tasks_, *threads_;
  uint64_t task_bytes_, thread_bytes_, rows_bytes_, bytes_;
};

}  // namespace fnce::cpu
