// The pass over the negatives on the CPU: anchors in, a partial out. Equations (3) to (7) and the sums of (8).
#pragma once
#include "core/layout.h"
#include "cpu/masks.h"
#include "cpu/rows.h"

namespace fnce::cpu {

// Both sides of a batch of pairs, as the rows and the columns of a pass, equation (17).
struct PairPass {
  PairSide rows, columns;  // each [N], and kColumnTile of padding
  float *m, *l;            // [row blocks, N] forward: the softmax of each column over the rows of a block; else null
};

// The columns of a pass, and what it computes beside m and l.
struct PassRequest {
  ColumnSource queue, batch;
  const int64_t* row_ids;  // [N] or null
  bool mixing;             // as the problem says; false: the queue as it is (fnce_scores)
  bool sums;               // O
  bool mixed;              // statistics of the columns
  bool unmixed;            // statistics of the raw scores
  const PairPass* pairs;   // null: no pairs. Forward, tasks hold all panels of their row block
};

// Checks that a given permutation is a bijection, if asked to. Throws StatusError before anything is written.
void check_permutation(const CpuCall& call);

void run_pass(const CpuCall& call, const PassRequest& options, const fnce_anchors& anchors, const PartialView& partial);

}  // namespace fnce::cpu
