// The end of a block: its column warps' results are merged in their order through shared memory, and the first column
// warp of each row warp writes the split's rows; feature warps have nothing to merge, and each writes its features.
#pragma once
#include "kernels/engines/sm80/statistics.cuh"
#include "kernels/rows/columns.cuh"

namespace fnce::cuda::sm80 {

// Merges the running softmax of column warps 0, 1, ... into that of column warp 0. Ends with the block in step.
template <class C>
FNCE_DEVICE void merge_column_warps(const Shared<C>& shared, const Place<C>& place, RunningRows<C>& rows, Sums<C>& o) {
  constexpr int kLanes = 32 * C::kRowWarps;  // of one column warp's rows
  const int lane = 32 * place.row_warp + place.lane;
  float *const scalars = shared.scalars(), *const sums = shared.sums();
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi)
      FNCE_UNROLL for (int h = 0; h < 2; ++h) for (int mask = 1; mask <= 2; mask *= 2)
          rows.l[mi][h] += __shfl_xor_sync(kFullWarp, rows.l[mi][h], mask);
  for (int warp = 1; warp < C::kColumnWarps; ++warp) {
    __syncthreads();
    if (place.column_warp == warp) {
      FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) {
        FNCE_UNROLL for (int c = 0; c < C::kFeatures / 8; ++c) FNCE_UNROLL for (int r = 0; r < 4; ++r)
            sums[((mi * C::kFeatures / 8 + c) * 4 + r) * kLanes + lane] = o[mi][c][r];
        FNCE_UNROLL for (int h = 0; h < 2; ++h) {
          scalars[(2 * mi + h) * kLanes + lane] = rows.reference[mi][h];
          scalars[(2 * (C::kMi + mi) + h) * kLanes + lane] = rows.l[mi][h];
        }
      }
    }
    __syncthreads();
    if (place.column_warp != 0) continue;
    FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) {
      float keep[2], add[2];
      FNCE_UNROLL for (int h = 0; h < 2; ++h) {
        const float other = scalars[(2 * mi + h) * kLanes + lane], own = rows.reference[mi][h];
        const float reference = fmaxf(own, other);
        keep[h] = exp2_approx(own - reference);
        add[h] = exp2_approx(other - reference);
        rows.reference[mi][h] = reference;
        rows.l[mi][h] = rows.l[mi][h] * keep[h] + scalars[(2 * (C::kMi + mi) + h) * kLanes + lane] * add[h];
      }
      FNCE_UNROLL for (int c = 0; c < C::kFeatures / 8; ++c) FNCE_UNROLL for (int r = 0; r < 4; ++r) o[mi][c][r] =
          o[mi][c][r] * keep[r >> 1] + sums[((mi * C::kFeatures / 8 + c) * 4 + r) * kLanes + lane] * add[r >> 1];
    }
  }
  __syncthreads();
}

template <class C>
FNCE_DEVICE void write_rows(const MainParams& p, const Place<C>& place, const RunningRows<C>& rows, const Sums<C>& o,
                            const RowColumns& met) {
  if (place.column_warp != 0) return;
  // Elements of a float32 queue were multiplied as 2^kQueueExponent times what they are.
  constexpr float kUnit = C::kConverts ? 1.0f / (1 << kQueueExponent) : 1.0f;
  const uint2 block = block_read_again();
  const int first_feature = place.first_feature() + accumulator_column(place.lane, 0), d = static_cast<int>(p.d);
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) {
    const uint32_t row = block.x * C::kRows + static_cast<uint32_t>(place.row(mi, h));
    if (row >= p.n) continue;
    const int64_t at = block.y * p.n + row;
    if (place.feature_warp == 0 && (place.lane & 3) == 0) {
      p.out.view.m[at] = ended_maximum(rows.reference[mi][h], met);
      p.out.view.l[at] = rows.l[mi][h];
    }
    if (!p.sums) continue;
    FNCE_UNROLL for (int c = 0; c < C::kFeatures / 8; ++c) FNCE_UNROLL for (int r = 0; r < 2; ++r) {
      const int feature = first_feature + 8 * c + r;
      if (feature < d) p.out.view.o[at * p.d + feature] = o[mi][c][2 * h + r] * kUnit;
    }
  }
}

// Merges lanes, then column warps, in order; a thread per row writes the statistics.
template <class C>
FNCE_DEVICE void write_statistics(const MainParams& p, const Shared<C>& shared, const Place<C>& place,
                                  const Statistics<C>& statistics) {
  RowScores* const all = shared.statistics();
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) {
    const RowScores merged = merge_lanes(scores_of(statistics, mi, h), place.lane);
    if (place.feature_warp == 0 && (place.lane & 3) == 0) all[place.column_warp * C::kRows + place.row(mi, h)] = merged;
  }
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.x);
  const uint2 block = block_read_again();
  const uint32_t row = block.x * C::kRows + static_cast<uint32_t>(thread);
  if (thread >= C::kRows || row >= p.n) return;
  RowScores merged = all[thread];
  for (int warp = 1; warp < C::kColumnWarps; ++warp) merged = merge(merged, all[warp * C::kRows + thread]);
  const int64_t at = block.y * p.n + row;
  for (int set = 0; set < 2; ++set)
    if (p.statistics[set]) store_stats(merged.sets[set], p.out.view.stats[set], at);
  if (!p.statistics[1]) return;
  p.out.view.stats[1].m[at] = merged.unmixed.m;
  p.out.view.stats[1].l[at] = merged.unmixed.l;
}

// Writes the largest magnitude of a float32 queue that this block has seen.
template <class C>
FNCE_DEVICE void write_extent(const MainParams& p, const Shared<C>& shared, float extent) {
  float* const warps = shared.extents();
  for (int mask = 16; mask > 0; mask /= 2) extent = fmaxf(extent, __shfl_xor_sync(kFullWarp, extent, mask));
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = extent;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < C::kThreads / 32; ++warp) extent = fmaxf(extent, warps[warp]);
  p.queue_extent[blockIdx.x + int64_t{gridDim.x} * blockIdx.y] = extent;
}

}  // namespace fnce::cuda::sm80
