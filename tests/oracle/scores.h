// Statistics of scores, equation (9), for the oracle's own use.
#pragma once

#include <vector>

#include "oracle/forward.h"

namespace oracle {

// Scores [N,columns] before the division by the temperature, which of them count, and biases [columns].
template <class T>
struct ScoreMatrix {
  std::vector<T> score;
  const std::vector<char>& counts;
  std::vector<T> bias;
};

// q, k: [N,D], the two sides of the positive; anchor:
// [N,D], whose norms set the ties.
template <class T>
Scores<T> score_statistics(const Inputs& inputs, ScoreMatrix<T> scores, const std::vector<T>& q,
                           const std::vector<T>& k, const std::vector<T>& anchor);

}  // namespace oracle
