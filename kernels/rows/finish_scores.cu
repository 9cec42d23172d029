// fnce_scores: the statistics of a row over the partials of all splits. A thread per row.
#include "kernels/rows/kernels.h"
#include "kernels/rows/statistics.cuh"
#include "math/row.h"

namespace fnce::cuda {
namespace {

// The log-sum-exp over the columns of a row, natural.
FNCE_DEVICE double log_sum_of(const RowPartials& partials) {
  LogSum<double> sum;
  double top = static_cast<double>(kNoColumn);
  for (int s = 0; s < count_of(partials); ++s) {
    const RowPartial partial = partial_at(partials, s);
    const double m = maximum_of(partial);
    top = MaxOrNan()(top, m);
    sum = fnce::merge(sum, {m, static_cast<double>(partial.view.l[partial.index])});
  }
  sum.m = merged_maximum(top);
  return log_sum_exp(sum) + nan_unless_finite(sum.m);
}

__global__ void __launch_bounds__(kRowThreads, 4) finish_scores(const __grid_constant__ FinishScoresParams p) {
  // What was multiplied by a wrong temperature is NaN, whatever else it was.
  const double check = static_cast<double>(nan_unless_finite(score_scale(value_of(p.temperature))));
  const int64_t threads = int64_t{gridDim.x} * kRowThreads;
  for (int64_t i = int64_t{blockIdx.x} * kRowThreads + threadIdx.x; i < p.n; i += threads) {
    if (p.out.pos) p.out.pos[i] = p.pos[i];
    if (!wants_negatives(p.out)) continue;
    const RowPartials partials = {p.from, nullptr, i};
    const RowStats<double> statistics = merge_statistics(partials, 0, 0, count_of(partials)).stats;
    write_scores(p.out, i, rounded_stats(statistics), log_sum_of(partials) + check);
  }
}

}  // namespace

Kernel<FinishScoresParams> finish_scores_kernel() { return {finish_scores, "fnce_finish_scores", kRowThreads, 0}; }

}  // namespace fnce::cuda
