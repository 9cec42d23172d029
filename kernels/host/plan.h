// Which kernels a problem runs with, and how they are cut into blocks: a pure function of the problem and the device.
#pragma once
#include <cstdint>

#include "core/problem.h"
#include "kernels/contract/family.h"

namespace fnce::cuda {

// For how many multiprocessors the work is cut: what FNCE_MULTIPROCESSORS in the environment says, or all that the
// device has. Throws FNCE_INVALID_ARGUMENT for anything but a number from 1 on; null is nothing.
int planned_multiprocessors(const char* text, int all);

// One launch of a main kernel.
struct MainLaunch {
  const Family* family;
  int32_t kernel_id;   // known to the family
  int rows, columns;   // queries of a block, negatives of a column tile
  int64_t features;    // D as the kernel pads it
  int64_t row_blocks;  // gridDim.x
  int64_t column_tiles;
  int32_t splits;  // gridDim.y

  Kernel<MainParams> kernel() const { return family->kernel(kernel_id); }
  int64_t padded_rows() const { return row_blocks * rows; }
  int64_t blocks() const { return row_blocks * splits; }
};

struct CudaChoice {
  const Family* family;
  Operand operand;
  const Family* better;  // the one that `reason` keeps away; null: none
  FamilyReason reason;
  int sm_count;       // multiprocessors that the work is cut for
  bool mixes_scores;  // the pass goes in the order of sigma
  bool premixes;      // mixed rows are written once, before the pass
  int32_t premixed_type;
  int64_t premixed_stride;
  MainLaunch loss;
  MainLaunch scores;  // of fnce_scores: the queue as it is, with statistics
  // What makes a pass again, in as many splits, where float16 cannot hold a float32 queue; without a family where that
  // cannot be.
  MainLaunch fallback;

  bool packs() const { return is_packed(operand); }
  bool may_fall_back() const { return fallback.family != nullptr; }
};

// Takes the best family that serves, or `forced` unless it is null. Throws StatusError FNCE_UNSUPPORTED where the
// device is too old, or the forced family cannot serve.
CudaChoice choose(const Problem& problem, const DeviceCaps& caps, const Family* forced);

// Blocks that fill the tables of a call: 0 where there are none to fill.
int32_t table_blocks(const Problem& problem);

// What fnce_plan_get_info tells of the choice.
fnce_plan_info info_of(const Problem& problem, const CudaChoice& choice, const DeviceCaps& caps,
                       uint64_t workspace_bytes);

}  // namespace fnce::cuda
