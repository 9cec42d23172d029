// A family of main kernels as the host sees it. kernels/engines has a folder for each, kernels/host/families.cpp lists
// them.
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>
#include <vector>

#include "core/problem.h"
#include "kernels/contract/caps.h"
#include "kernels/contract/kernel.h"
#include "kernels/contract/params.h"

namespace fnce::cuda {

// Why a family does not serve: FNCE_REASON_* and fnce_plan_info.family_limit. FNCE_REASON_NONE: it serves.
struct FamilyReason {
  int32_t code;
  int64_t limit;
};

// What a pass computes, as far as the choice of its kernel depends on it.
struct PassKind {
  bool mixes_scores;
  bool statistics;
};

// A main kernel that can make a pass. Its id is known to its family alone.
struct MainKernel {
  int32_t id;
  int rows, columns;     // queries of a block, negatives of a column tile
  int64_t features;      // D as the kernel pads it
  int blocks_per_sm;     // that run at a time
  int64_t most_columns;  // of a split
};

struct Family {
  int32_t code;  // FNCE_FAMILY_*, which has the name
  // What it multiplies for a problem.
  Operand (*operand)(const Problem& problem);
  // Why it cannot make all passes of a problem on a device.
  FamilyReason (*obstacle)(const Problem& problem, const DeviceCaps& caps);
  // Its kernels for one pass, where there is no obstacle: at least one. Among equally fast ones the first is taken.
  std::vector<MainKernel> (*kernels)(const Problem& problem, const DeviceCaps& caps, const PassKind& kind);
  Kernel<MainParams> (*kernel)(int32_t id);
};

}  // namespace fnce::cuda
