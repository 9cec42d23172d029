// Which kernels a problem runs with, and how they are cut into blocks: a pure function of the problem and the device.
#pragma once
#include <cstdint>

#include "core/problem.h"
#include "kernels/contract/caps.h"
#include "kernels/contract/params.h"
#include "kernels/engines/sm80/tile.h"

namespace fnce::cuda {

enum class Family { kPlain, kSm80 };

// What FNCE_BACKEND in the environment asks for.
enum class Forced { kNothing, kPlain, kSm80 };
// Throws FNCE_INVALID_ARGUMENT for another name; null is nothing.
Forced forced_family(const char* name);
// For how many multiprocessors the work is cut: what FNCE_MULTIPROCESSORS in the environment says, or all that the device has.
// Throws FNCE_INVALID_ARGUMENT for anything but a number from 1 on; null is nothing.
int planned_multiprocessors(const char* text, int all);

// One launch of the main kernel.
struct MainLaunch {
  sm80::Variant variant;  // of the sm80 family, with
  int tile;               // an index of tiles_of(operand)
  int rows, keys;         // queries per block, negatives per key tile
  int64_t row_blocks;     // gridDim.x
  int64_t key_tiles;
  int32_t splits;  // gridDim.y

  int64_t padded_rows() const { return row_blocks * rows; }
  int64_t blocks() const { return row_blocks * splits; }
};

// Why a better family does not serve, or why this one does: FNCE_REASON_* and fnce_plan_info.family_limit.
struct FamilyReason {
  int32_t code;
  int64_t limit;
};

struct CudaChoice {
  Family family;
  Operand operand;
  FamilyReason reason;
  int sm_count;       // multiprocessors that the work is cut for
  bool mixes_scores;  // the pass goes in the order of sigma
  bool premixes;      // mixed rows are written once, before the pass
  int32_t premixed_type;
  int64_t premixed_stride;
  int64_t d_padded;  // features of a packed anchor
  MainLaunch loss;
  MainLaunch scores;  // of fnce_scores: the queue as it is, with statistics

  bool packs() const { return family == Family::kSm80; }
  // A float32 queue is multiplied in float16: where its values do not fit, the plain kernel does the work again.
  bool may_fall_back() const { return packs() && sm80::converts(operand); }
};

// Throws StatusError: FNCE_UNSUPPORTED where the device is too old, or the forced family cannot serve.
CudaChoice choose(const Problem& problem, const DeviceCaps& caps, Forced forced);

// Blocks that fill the tables of a call: 0 where there are none to fill.
int32_t table_blocks(const Problem& problem);

// What fnce_plan_get_info tells of the choice.
fnce_plan_info info_of(const Problem& problem, const CudaChoice& choice, const DeviceCaps& caps,
                       uint64_t workspace_bytes);

}  // namespace fnce::cuda
