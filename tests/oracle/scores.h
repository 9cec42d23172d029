// Statistics of scores, equation (9), for the oracle's own use.
#pragma once

#include <vector>

#include "oracle/forward.h"

namespace oracle {

// score: [N,columns] and pos: [N] before the division by the temperature; anchor: [N,D], whose norms set the ties.
template <class T>
Scores<T> score_statistics(const Inputs& inputs, std::vector<T> score, std::vector<T> pos,
                           const std::vector<T>& anchor);

}  // namespace oracle
