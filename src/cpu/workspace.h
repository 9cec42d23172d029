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
  PreparedRow row;
  float *lambda_row, *gradient, *factors;
};

// The pieces of one call's workspace; with base = nullptr it only counts bytes().
class Workspace {
 public:
  Workspace(void* base, const Problem& problem, const Tiling& tiling, const TileKernels& tiles, int threads);

  uint64_t bytes() const { return bytes_; }
  TaskState task(int64_t row_block, int64_t chunk) const;
  ThreadScratch thread(int worker) const;

  float *anchors, *pos, *unmixed_pos;        // [N,D], [N], [N]
  void* partial;                             // of the loss
  float *loss_rows, *dtemperature_rows;      // [N]
  void* packed_anchors;                      // row block after row block
  float *upper[2], *lower[2];                // [padded rows of all row blocks] thresholds of the ranks: mixed, unmixed
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
  uint64_t task_bytes_, thread_bytes_, bytes_;
};

}  // namespace fnce::cpu
