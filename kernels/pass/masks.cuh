// Which columns count for a row, equation (14), and their biases, (15): what a column and a row say, and the one notion
// of existence that follows from it.
#pragma once
#include "kernels/contract/platform.cuh"
#include "math/lse.h"

namespace fnce::cuda {

// What a column says. A column by itself is its own partner.
struct ColumnMask {
  int64_t id, partner_id;  // FNCE_NO_COLUMN: equals that of no row
  float bias;              // in inner products, -infinity leaves the column out
  float limit;             // a product above it leaves the column out
  bool nobodys;            // counts for no row, and no column that it is mixed into does
  bool spoiled;            // its bias is no number
};

// What a row says.
struct RowMask {
  int64_t id;
  float limit;
};

// The mask of row `row` of a segment.
FNCE_DEVICE ColumnMask column_mask(const Segment& segment, int64_t row, float temperature) {
  ColumnMask mask = {FNCE_NO_COLUMN, FNCE_NO_COLUMN, 0.0f, __builtin_huge_valf(), false, false};
  if (segment.ids) {
    mask.id = segment.ids[row];
    mask.partner_id = segment.partner_ids ? segment.partner_ids[row] : mask.id;
    mask.nobodys = !segment.unnamed_counts && (mask.id == FNCE_NO_COLUMN || mask.partner_id == FNCE_NO_COLUMN);
  }
  if (segment.bias) {
    const float bias = segment.bias[row] * temperature;
    mask.spoiled = bias != -__builtin_huge_valf() && !is_finite(bias);
    mask.bias = mask.spoiled ? 0.0f : bias;
  }
  if (segment.limits) mask.limit = segment.limits[row];
  return mask;
}

// The mask of query `row` for the scores of set `set`: 0 those of the loss, 1 the unmixed ones.
FNCE_DEVICE RowMask row_mask(const MainParams& p, int set, int64_t row) {
  return {p.row_ids ? p.row_ids[row] : FNCE_NO_COLUMN, p.limits[set] ? p.limits[set][row] : __builtin_huge_valf()};
}

// The ids leave the column out, and every column that it is mixed into.
FNCE_DEVICE bool names(const ColumnMask& column, const RowMask& row) {
  return column.nobodys || (row.id != FNCE_NO_COLUMN && (row.id == column.id || row.id == column.partner_id));
}

// `score` is the inner product of row and column. One that is no number is not above a limit.
FNCE_DEVICE bool counts(const ColumnMask& column, const RowMask& row, float score) {
  return !names(column, row) && column.bias != -__builtin_huge_valf() && !(score > column.limit) &&
         !(score > row.limit);
}

}  // namespace fnce::cuda
