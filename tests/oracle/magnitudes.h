// Equations (1)-(8) in magnitudes: every term replaced by its absolute value, for first-order bounds of errors.
#pragma once

#include <vector>

#include "oracle/oracle.h"

namespace oracle {

using Rows = std::vector<double>;

// Magnitudes that enter the vectors: |q|, |k|, |lambda||q| + |1-lambda||k| and so on, after renormalisation.
struct Magnitudes {
  Rows q, k, q_mixed, k_mixed, anchor;                           // [N,D]
  Rows batch;                                                    // [C,D]
  Rows negatives;                                                // [columns,D]
  Rows q_norm, k_norm, q_mixed_norm, k_mixed_norm, anchor_norm;  // [N]
  Rows negative_norm, raw_norm;                                  // [columns], [K + C]
};

Magnitudes magnitudes_of(const Inputs& inputs, const Result<double>& result);

// Bounds on what reaches a row's anchor, mixed query and mixed key, each [D].
struct RowBounds {
  explicit RowBounds(int64_t d) : anchor(d, 0), q_mixed(d, 0), k_mixed(d, 0) {}
  Rows anchor, q_mixed, k_mixed;
};

// Carries them back through (4), (2), (1) to the features, as the gradient goes; adds to dq and dk [N,D].
void propagate(const Inputs& inputs, const Result<double>& result, const Magnitudes& magnitudes, int64_t row,
               RowBounds bounds, Rows& dq, Rows& dk);

// Carries a bound on what reaches each batch column, [C,D], back through (1).
void propagate_batch(const Inputs& inputs, const Result<double>& result, Rows& dx_c);

}  // namespace oracle
