// The errors, per row, that roundings to 16 bits inside the computation may add to those of float32.
//
// Weights     An engine rounds each weight P of its sums, relative to a maximum of its own: an error of up to u of it
//             (bfloat16: 2^-9, float16: 2^-12), independent of the twin's. Errors of weights that differ by less than a
//             rounding's width 2u may agree in sign; those of others add up as squares do. So per feature, over groups
//             G of weights that share floor(log P / 2u):   u sqrt(sum_G (sum_{j in G} p_j |z_j|)^2).
//             float16 ends: each weight below 2^-20 of the row's largest is off by up to 2^-31 of the largest, or all
//             of itself, and all of them may agree in sign:   sum_j min(p_j, 2^-31 max p) |z_j|.
// Halves      kFloat16Split takes each factor as h + l, two float16, and leaves out the product of the two l. With 11
//             digits in each, |l| <= 2^-11 |x| and |x - h - l| <= 2^-23 |x|, so a product of two is off by
//             2^-22 + 2 * 2^-23 = 2^-21 of its magnitude at most, all of them perhaps with one sign. The policy allows
//             twice the unit, and the unit of float32 has 2^-23 of the same magnitudes, for roundings that have no one
//             sign: 2^-23 more make 2^-21. l ends at 2^-24 of the scaled value, half of which is 2^-25: 2^-39 of an
//             element of the queue, scaled by 2^14, and 2^-38 of an anchor's largest element, which lies above 2^13.
//             Scores are sums of such products; so are the weighted sums, whose P end at 2^-38 of the largest.
// Neighbours  A value that lies within float32's error of the middle of two neighbours may round to either: the
//             anchor, a mixed row, the key of the ranks. The oracle takes one, the library may take the other, a full
//             unit away.
#pragma once

#include "oracle/condition.h"
#include "oracle/magnitudes.h"

namespace oracle {

void add_roundings(const Inputs& inputs, const Result<double>& result, const Magnitudes& magnitudes, Condition& out);

}  // namespace oracle
