// The partials of splits of the columns, or of shards, become one: a block per row.
#include "kernels/rows/kernels.h"
#include "kernels/rows/merge.cuh"

namespace fnce::cuda {
namespace {

FNCE_DEVICE void store_statistics(const StatsView& out, int64_t i, const SetStats<float>& s) {
  store_stats(s.stats, out, i);
  if (!out.m) return;
  out.m[i] = s.lse.m;
  out.l[i] = s.lse.l;
}

__global__ void __launch_bounds__(kRowThreads, 4) merge_rows(const __grid_constant__ MergeParams p) {
  FNCE_DYNAMIC_SHARED(shared);
  BlockReduce reduce = {shared};
  float* scale_factors = reinterpret_cast<float*>(shared + kReduceBytes);
  const int64_t i = blockIdx.x;
  const RowPartials partials = {p.from, p.accumulates ? &p.out : nullptr, i};
  float l;
  const MergedMaximum maximum = merge_log_sums(partials, l, reduce);
  // Either way ends with a barrier, behind which nobody reads the m and l accumulated so far.
  if (p.from.has_o)
    l += merge_sums(partials, maximum, scale_factors, p.out.o + i * p.from.d, reduce);
  else
    __syncthreads();
  if (threadIdx.x == 0) {
    p.out.m[i] = maximum.m;
    p.out.l[i] = l;
  }
  const int set = static_cast<int>(threadIdx.x / 32);
  if (set > 1 || !p.from.view.stats[set].count || !p.out.stats[set].count) return;
  const SetStats<float> statistics = rounded_statistics(merge_statistics_by_warp(partials, set));
  if (threadIdx.x % 32 == 0) store_statistics(p.out.stats[set], i, statistics);
}

}  // namespace

Kernel<MergeParams> merge_kernel() { return {merge_rows, "fnce_merge", kRowThreads, kReduceBytes + kScaleFactorBytes}; }

}  // namespace fnce::cuda
