// Parts of a case, as processes hold them: some rows of the batch against some columns of the queue and some batch
// columns.
#pragma once

#include <cstdint>
#include <vector>

#include "support/problem.h"

namespace support {

struct Range {
  int64_t first = 0, count = 0;
};

// Consecutive ranges of these sizes.
std::vector<Range> ranges_of(const std::vector<int64_t>& counts);

// The case of one process: its rows and its shard of the negatives, offsets set so that the draws are the whole's, and
// its batch columns.
Case part_of(const Case& whole, Range rows, Range columns, Range batch = {});

fnce_layout layout_of(const Plan& plan);

// What the steps of a call leave behind them, in host memory.
using Bytes = std::vector<unsigned char>;
struct StepResults {
  std::vector<float> anchor, pos, unmixed_pos;  // of fnce_prep
  std::vector<Bytes> partials;                  // of every column range
  Bytes merged;
  fnce_layout layout;  // of the partials
  Outputs outputs;     // concatenated in row order, dx_c in the order of the columns
};

// The whole call in steps: every row range prepares its anchors, every column range makes a partial for all rows, the
// partials are reduced, every row range finishes. The batch columns are shared among the column ranges as evenly as
// they can be, and each process computes the gradient of its own from all anchors. Reduction must be NONE where there
// are several row ranges.
enum class Reduce { kMerge, kMergeInPlace, kMaxAndSum };
StepResults run_steps(const Case& whole, const std::vector<int64_t>& row_counts,
                      const std::vector<int64_t>& column_counts, Reduce reduce);
// The outputs of these steps.
Outputs run_in_steps(const Case& whole, const std::vector<int64_t>& row_counts,
                     const std::vector<int64_t>& column_counts, Reduce reduce);

}  // namespace support
