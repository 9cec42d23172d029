// Margins that no score is close to: one within rounding of the limit may be left out or not, so tests keep away.
#pragma once

#include "support/problem.h"

namespace support {

// How close the score of a column that ids and bias allow comes to the limit of the case's margin, in any set of
// scores; infinity without a margin.
double distance_to_margin(const Case& c);

// How far rounding moves the difference of a score and its limit.
double margin_rounding(const Case& c);

// Puts the margin of a case with margin_mask into the widest gap between what its columns score above the positive, so
// that some are left out and some are not. False, and no margin_mask, where rounding reaches across every gap.
bool choose_margin(Case& c);

}  // namespace support
