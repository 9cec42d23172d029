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

}  // namespace fnce::cuda
