// Which columns the rows of a block meet in a split: there is no mask, so that all rows meet the same.
#pragma once
#include "core/columns.h"
#include "kernels/contract/platform.cuh"

namespace fnce::cuda {

// Of tiles begin .. end - 1 of all segments, `width` rows of a segment each.
FNCE_DEVICE RowColumns columns_of_tiles(const MainParams& p, int width, int64_t begin, int64_t end) {
  RowColumns met;
  for (int s = 0; s < p.segment_count; ++s) {
    const int64_t count = p.segments[s].count, tiles = (count + width - 1) / width;
    const int64_t first = begin < 0 ? 0 : begin * width, last = end * width < count ? end * width : count;
    if (p.segments[s].in_loss && last > first) met.count += (p.is_union ? 2 : 1) * (last - first);
    begin -= tiles;
    end -= tiles;
  }
  return met;
}

}  // namespace fnce::cuda
