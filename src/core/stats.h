// Where the statistics of rows lie in memory, an array per statistic, and the one place that goes from there to the
// statistics of one row (RowStats of math/stats.h) and back. Every backend uses it.
#pragma once
#include <flashnce/flashnce.h>

#include "math/stats.h"

namespace fnce {

// [rows] each; null where a statistic is not gathered. Count is what RowStats counts in.
template <class Count>
struct StatsArrays {
  Count* count = nullptr;
  float* mean = nullptr;
  float* m2 = nullptr;
  float* min = nullptr;
  float* max = nullptr;
  Count* n_greater = nullptr;
  Count* n_greater_equal = nullptr;
  float* m = nullptr;  // m and l: the log-sum-exp of the scores / temperature
  float* l = nullptr;
};

// One of the two sets of statistics inside a partial. The log-sum-exp of the first, the mixed scores, is that of the
// loss.
using StatsView = StatsArrays<int64_t>;

// Calls visit(&StatsArrays<Count>::array) for every array.
template <class Count, class Visit>
FNCE_HD void for_each_array(Visit&& visit) {
  using Arrays = StatsArrays<Count>;
  visit(&Arrays::count);
  visit(&Arrays::mean);
  visit(&Arrays::m2);
  visit(&Arrays::min);
  visit(&Arrays::max);
  visit(&Arrays::n_greater);
  visit(&Arrays::n_greater_equal);
  visit(&Arrays::m);
  visit(&Arrays::l);
}

// The statistics of row i but for its log-sum-exp, with sums in T.
template <class T, class Count>
FNCE_HD RowStats<T> load_stats(const StatsArrays<Count>& from, int64_t i) {
  RowStats<T> stats;
  stats.count = from.count[i];
  stats.mean = static_cast<T>(from.mean[i]);
  stats.m2 = static_cast<T>(from.m2[i]);
  stats.min = from.min[i];
  stats.max = from.max[i];
  stats.n_greater = from.n_greater[i];
  stats.n_greater_equal = from.n_greater_equal[i];
  return stats;
}

template <class StatsCount, class Count>
FNCE_HD void store_stats(const RowStats<float, StatsCount>& stats, const StatsArrays<Count>& to, int64_t i) {
  to.count[i] = stats.count;
  to.mean[i] = stats.mean;
  to.m2[i] = stats.m2;
  to.min[i] = stats.min;
  to.max[i] = stats.max;
  to.n_greater[i] = stats.n_greater;
  to.n_greater_equal[i] = stats.n_greater_equal;
}

template <class T>
FNCE_HD LogSum<T> load_log_sum(const float* m, const float* l, int64_t i) {
  return LogSum<T>{static_cast<T>(m[i]), static_cast<T>(l[i])};
}

// The statistics of row i as they are reported, equation (9). `lse`: the log-sum-exp of the scores / temperature,
// natural.
FNCE_HD void write_scores(const fnce_score_buffers& out, int64_t i, const RowStats<float>& stats, double lse) {
  // Exponentials and comparisons may lose a NaN; the mean does not.
  if (!is_finite(stats.mean)) lse = static_cast<double>(__builtin_nanf(""));
  if (out.neg_count) out.neg_count[i] = stats.count;
  if (out.neg_mean) out.neg_mean[i] = stats.mean;
  if (out.neg_variance) out.neg_variance[i] = variance(moments_of(stats));
  if (out.neg_min) out.neg_min[i] = stats.min;
  if (out.neg_max) out.neg_max[i] = stats.max;
  if (out.neg_log_mean_exp)
    out.neg_log_mean_exp[i] =
        stats.count > 0 ? static_cast<float>(lse - log_of(static_cast<double>(stats.count))) : -__builtin_huge_valf();
  if (out.n_greater) out.n_greater[i] = stats.n_greater;
  if (out.n_greater_equal) out.n_greater_equal[i] = stats.n_greater_equal;
}

}  // namespace fnce
