// Which rows of the queue a column tile holds, in what order, and how they are mixed: the three ways of equation (3).
#pragma once
#include "core/columns.h"
#include "cpu/rows.h"

namespace fnce::cpu {

enum class Mixing {
  kNone,    // Z as it is
  kScores,  // lambda per call or row, sampled permutation: raw rows in the order of sigma, scores are mixed
  kRows     // everything else: rows are mixed while they are packed
};

// The random tables of a call and the way its negatives are mixed. The tables are in the workspace.
struct Negatives {
  Mixing mixing;
  bool is_union;
  float lambda_call;  // sampled per call
  LambdaDraw draw;    // sampled per element
};

// Draws the tables, in parallel.
Negatives draw_negatives(const CpuCall& call, bool mixing);

// Columns [first, first + count) in the order of the pass. Runs their tile for one task; `next` are the columns of the
// tile that follows, to be prefetched. Returns what a row meets that has all columns of the tile.
struct ColumnRange {
  int64_t first;
  int count;
};
RowColumns run_columns(const CpuCall& call, const Negatives& negatives, const ColumnRange& range,
                       const ColumnRange& next, const ThreadScratch& scratch, TileJob job);

}  // namespace fnce::cpu
