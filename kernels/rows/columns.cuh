// Which columns the rows of a block meet in a split: there is no mask, so that all rows meet the same.
#pragma once
#include "core/columns.h"
#include "kernels/contract/platform.cuh"

namespace fnce::cuda {

// The columns of tiles begin .. end - 1 of all segments, where a tile is `width` rows of a segment.
FNCE_DEVICE RowColumns columns_of_tiles(const MainParams& p, int32_t width, int32_t begin, int32_t end) {
  RowColumns met;
  for (int s = 0; s < p.segment_count; ++s) {
    const auto tiles = static_cast<int32_t>((p.segments[s].count + width - 1) / width);
    const int32_t first = begin < 0 ? 0 : begin, last = end < tiles ? end : tiles;
    if (p.segments[s].in_loss && last > first) {
      const int64_t rows = last < tiles ? int64_t{last} * width : p.segments[s].count;
      met.count += (p.is_union && s == 0 ? 2 : 1) * (rows - int64_t{first} * width);
    }
    begin -= tiles;
    end -= tiles;
  }
  return met;
}

}  // namespace fnce::cuda
