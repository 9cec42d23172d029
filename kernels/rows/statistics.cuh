// The score statistics of a row as they are reported, equation (9).
#pragma once
#include "kernels/rows/merge.cuh"

namespace fnce::cuda {

// True if anything is asked for that comes from the negatives alone.
FNCE_DEVICE bool wants_negatives(const fnce_score_buffers& out) {
  return out.neg_count || out.neg_mean || out.neg_variance || out.neg_min || out.neg_max || out.neg_log_mean_exp ||
         out.n_greater || out.n_greater_equal;
}

}  // namespace fnce::cuda
