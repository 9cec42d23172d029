// The score statistics of a row as they are reported, equation (9).
#pragma once
#include "kernels/rows/merge.cuh"

namespace fnce::cuda {

// log2(e) / temperature in float32, as the main kernel scales scores; NaN for a wrong temperature.
FNCE_DEVICE float score_scale_of(float temperature) {
  const bool right = temperature > 0 && is_finite(temperature);
  return right ? static_cast<float>(kLog2e / static_cast<double>(temperature)) : nan_float();
}

FNCE_DEVICE double log_sum(float m, float l) {
  return log_sum_exp(LogSum<double>{static_cast<double>(m), static_cast<double>(l)});
}

// Whether anything is asked for that comes from the negatives alone.
FNCE_DEVICE bool wants_negatives(const fnce_score_buffers& out) {
  return out.neg_count || out.neg_mean || out.neg_variance || out.neg_min || out.neg_max || out.neg_log_mean_exp ||
         out.n_greater || out.n_greater_equal;
}

// By one thread. lse: the log-sum-exp of the scores / temperature.
FNCE_DEVICE void write_statistics(const fnce_score_buffers& out, int64_t i, const RowStats& stats, double lse) {
  // Exponentials and comparisons may lose a NaN; the mean does not.
  if (!is_finite(stats.mean)) lse = nan_float();
  if (out.neg_count) out.neg_count[i] = stats.count;
  if (out.neg_mean) out.neg_mean[i] = stats.mean;
  if (out.neg_variance) out.neg_variance[i] = variance(Moments<float>{stats.count, stats.mean, stats.m2});
  if (out.neg_min) out.neg_min[i] = stats.min;
  if (out.neg_max) out.neg_max[i] = stats.max;
  if (out.neg_log_mean_exp)
    out.neg_log_mean_exp[i] =
        stats.count > 0 ? static_cast<float>(lse - log_of(static_cast<double>(stats.count))) : -infinity_float();
  if (out.n_greater) out.n_greater[i] = stats.n_greater;
  if (out.n_greater_equal) out.n_greater_equal[i] = stats.n_greater_equal;
}

}  // namespace fnce::cuda
