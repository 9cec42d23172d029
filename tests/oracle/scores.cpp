// Equation (9) of the oracle: statistics of a matrix of scores, two-pass and direct.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "oracle/scores.h"

namespace oracle {
namespace {

constexpr double kTieEpsilons = 8.0 / 8388608.0;  // 8 * 2^-23

template <class T>
void fill_row(T temperature, int64_t i, Scores<T>& out) {
  const T infinity = std::numeric_limits<T>::infinity();
  out.mean[i] = 0;
  out.variance[i] = std::numeric_limits<T>::quiet_NaN();
  out.min[i] = infinity;
  out.max[i] = -infinity;
  out.log_mean_exp[i] = -infinity;
  std::vector<T> score, logit;  // of the columns that count
  for (int64_t j = 0; j < out.columns; ++j) {
    if (!out.counts[i * out.columns + j]) continue;
    score.push_back(out.score[i * out.columns + j]);
    logit.push_back(score.back() / temperature + out.bias[j]);
  }
  const auto count = static_cast<int64_t>(score.size());
  out.count[i] = count;
  if (count == 0) return;
  T sum = 0;
  for (const T s : score) {
    sum += s;
    out.min[i] = std::min(out.min[i], s);
    out.max[i] = std::max(out.max[i], s);
  }
  out.mean[i] = sum / T(count);
  const T top = *std::max_element(logit.begin(), logit.end());
  T squares = 0, exponentials = 0;
  for (const T s : score) squares += (s - out.mean[i]) * (s - out.mean[i]);
  for (const T s : logit) exponentials += std::exp(s - top);
  if (count > 1) out.variance[i] = squares / T(count - 1);
  out.log_mean_exp[i] = top + std::log(exponentials / T(count));
}

// Columns of the row that count and for which `above` holds.
template <class T, class Above>
int64_t count_if(const Scores<T>& scores, int64_t row, Above above) {
  int64_t count = 0;
  for (int64_t j = row * scores.columns; j < (row + 1) * scores.columns; ++j)
    count += scores.counts[j] && above(double(scores.score[j]));
  return count;
}

}  // namespace

template <class T>
Scores<T> score_statistics(const Inputs& in, ScoreMatrix<T> scores, const std::vector<T>& q, const std::vector<T>& k,
                           const std::vector<T>& anchor) {
  const int64_t n = in.n, d = in.d;
  Scores<T> out;
  out.columns = static_cast<int64_t>(scores.score.size()) / n;
  out.score = std::move(scores.score);
  out.counts = scores.counts;
  out.bias = std::move(scores.bias);
  out.count.resize(n);
  out.pos = row_products(q, k, n, d);
  out.rank_pos = rank_positives(in, q, k);
  out.tie.resize(n);
  for (auto* field : {&out.mean, &out.variance, &out.min, &out.max, &out.log_mean_exp}) field->resize(n);
  for (int64_t i = 0; i < n; ++i) {
    out.tie[i] = T(kTieEpsilons) * std::max(norm_of(&anchor[i * d], d), std::abs(out.rank_pos[i]));
    fill_row(T(in.temperature), i, out);
  }
  return out;
}

template <class T>
int64_t count_greater(const Scores<T>& scores, int64_t row, double margin) {
  const double threshold = double(scores.rank_pos[row]) + double(scores.tie[row]) + margin;
  return count_if(scores, row, [&](double score) { return score > threshold; });
}

template <class T>
int64_t count_greater_equal(const Scores<T>& scores, int64_t row, double margin) {
  const double threshold = double(scores.rank_pos[row]) - double(scores.tie[row]) + margin;
  return count_if(scores, row, [&](double score) { return score >= threshold; });
}

template Scores<double> score_statistics(const Inputs&, ScoreMatrix<double>, const std::vector<double>&,
                                         const std::vector<double>&, const std::vector<double>&);
template Scores<float> score_statistics(const Inputs&, ScoreMatrix<float>, const std::vector<float>&,
                                        const std::vector<float>&, const std::vector<float>&);
template int64_t count_greater(const Scores<double>&, int64_t, double);
template int64_t count_greater_equal(const Scores<double>&, int64_t, double);

}  // namespace oracle
