// What roundings to 16 bits inside the computation may add to the errors of float32, per row.
//
// Weights     The bfloat16 engine rounds each weight P of its sums, relative to a maximum of its own: an error of up
//             to 2^-9 of it, independent of the twin's. Errors of weights that differ by less than a rounding's width
//             (2^-8) may agree in sign; those of others add up as squares do. So per feature, over groups G of weights
//             that share floor(2^8 log P):   2^-9 sqrt(sum_G (sum_{j in G} p_j |z_j|)^2).
// Neighbours  A value that lies within float32's error of the middle of two neighbours may round to either: the
//             anchor, a mixed row, the key of the ranks. The oracle takes one, the library may take the other, a full
//             unit away.
#pragma once

#include "oracle/condition.h"
#include "oracle/magnitudes.h"

namespace oracle {

void add_roundings(const Inputs& inputs, const Result<double>& result, const Magnitudes& magnitudes, Condition& out);

}  // namespace oracle
