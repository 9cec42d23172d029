// The workspace of the CUDA backend in device memory: sized and carved by one constructor.
#pragma once
#include <cstdint>

#include "core/problem.h"
#include "kernels/contract/params.h"
#include "kernels/host/plan.h"

namespace fnce::cuda {

// The pieces of one call's workspace; with base = nullptr it only counts bytes().
class Workspace {
 public:
  Workspace(void* base, const Problem& problem, const CudaChoice& choice);

  uint64_t bytes() const { return bytes_; }
  // All but the partials of splits, which come last.
  uint64_t rows_bytes() const { return rows_bytes_; }
  // The partials of a launch's splits, with the statistics of `scores` (FNCE_SCORES_* bits).
  PartialView split_partials(const Problem& problem, const MainLaunch& launch, int32_t scores) const;

  float *anchor, *exact_pos;                 // [N,D], [N]
  PackedAnchors packed;                      // rows: as many as the launch with most
  float *upper[2], *lower[2];                // [N]
  float* limits[2];                          // [N]; null without a margin
  int32_t* order;                            // [K]; null without a sampled permutation
  float *lambda, *lambda_extent;             // [K] or [1], [table blocks]; null without mixing of scores
  float* row_scratch;                        // [N][kRowArrays][D]; null where shared memory holds a row
  int64_t* partner_ids;                      // [K]; null but for premixed rows with ids
  void* premixed;                            // [K][premixed_stride]
  void* batch;                               // [C,D] queue_type: batch columns as rows of the queue; null without any
  uint32_t* seen;                            // [(K + 31) / 32], followed by
  uint32_t* invalid;                         // [1]; both null unless a permutation is given
  float* queue_extent;                       // [blocks of the main kernel]; null where nothing can be out of range
  float *loss_rows, *dtemperature_row_sums;  // [N]
  uint32_t* ticket;                          // [1]

 private:
  unsigned char* split_partials_;
  uint64_t rows_bytes_, bytes_;
};

}  // namespace fnce::cuda
