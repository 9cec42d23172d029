// Which columns count for which rows, equation (14), and the biases of (15), as the engines take them.
//
// Ids are int64, and the lanes of a vector compare numbers instead: the ids that rows have are numbered in ascending
// order, and a column gets the number of its id, or kNoNumber if no row has it. A column counts for no row of its
// number.
#pragma once
#include "cpu/rows.h"

namespace fnce::cpu {

constexpr int32_t kNoNumber = -1;     // of a column whose id no row has
constexpr int32_t kNoRowNumber = -2;  // of a row without an id, and of padding

// An array of columns, and what comes with each of them.
struct ColumnSource {
  const void* rows = nullptr;     // [columns,D]
  int32_t type = FNCE_FLOAT32;    // of the elements of `rows`
  const int64_t* ids = nullptr;   // [columns] or null
  const float* bias = nullptr;    // [columns] or null; natural logarithm
  const float* limits = nullptr;  // [columns] or null: a column counts for no row with which its product is above
  bool unnamed_is_out = true;     // a column of the id FNCE_NO_COLUMN counts for nobody
};

// Numbers the ids of the rows, [N], in the workspace.
void number_rows(const CpuCall& call, const int64_t* ids);
// The number of a row's or column's id: `none` for FNCE_NO_COLUMN and for an id that no row has.
int32_t number_of(const CpuCall& call, int64_t id, int32_t none);

// What of a packed column is not finite: what was packed (zeros took its place), or the lambda that mixes its score.
constexpr uint8_t kBlankRow = 1, kBlankLambda = 2;

// The packed columns of a tile.
struct PackedColumns {
  int count;  // without padding
  int padded;
  const int32_t* rows;      // [padded] rows of the source
  const int32_t* partners;  // [padded] rows that they were mixed with while packed; null: none
  bool mixes_scores;        // their scores are mixed, each with the next of its quad
  const uint8_t* blank;     // [padded] kBlankRow | kBlankLambda of columns that are not finite; null: all are
};

// Writes the mask of a tile. Its arrays are in `scratch`. False if all columns count for all rows, have no bias and are
// finite.
bool make_mask(const CpuCall& call, const ColumnSource& source, const PackedColumns& columns,
               const ThreadScratch& scratch, TileMask& mask);

}  // namespace fnce::cpu
