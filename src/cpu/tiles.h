// Which rows of the queue a column tile holds, in what order, and how they are mixed: the three ways of equation (3).
#pragma once
#include "core/columns.h"
#include "cpu/masks.h"
#include "cpu/rows.h"

namespace fnce::cpu {

enum class Mixing {
  kNone,    // Z as it is
  kScores,  // lambda per call or row, sampled permutation: raw rows in the order of sigma, scores are mixed
  kRows     // everything else: rows are mixed while they are packed
};

// Where the columns of a chunk come from and how they are mixed, with the random tables of the call in the workspace.
struct Negatives {
  ColumnSource source;
  Mixing mixing = Mixing::kNone;
  bool is_union = false;
  float lambda_call = 0.0f;  // sampled per call
  LambdaDraw draw = {};      // sampled per element
};

// Mixes a queue as the problem says, or not at all. Draws the tables, in parallel.
Negatives draw_negatives(const CpuCall& call, const ColumnSource& queue, bool mixing);

// Columns [first, first + count) in the order of the pass. Runs their tile for one task; `next` are the columns of the
// tile that follows, to be prefetched. Returns what every row meets; what only some rows meet goes to job.counted and
// job.not_finite.
struct ColumnRange {
  int64_t first;
  int count;
};
RowColumns run_columns(const CpuCall& call, const Negatives& negatives, const ColumnRange& range,
                       const ColumnRange& next, const ThreadScratch& scratch, TileJob job);

}  // namespace fnce::cpu
