// Equation (9) of the oracle: statistics of a matrix of scores, two-pass and direct.
#include <algorithm>
#include <cmath>
#include <limits>

#include "oracle/scores.h"

namespace oracle {
namespace {

constexpr double kTieEpsilons = 8.0 / 8388608.0;  // 8 * 2^-23

template <class T>
void fill_row(const T* score, int64_t count, T temperature, int64_t i, Scores<T>& out) {
  const T infinity = std::numeric_limits<T>::infinity();
  out.mean[i] = 0;
  out.variance[i] = std::numeric_limits<T>::quiet_NaN();
  out.min[i] = infinity;
  out.max[i] = -infinity;
  out.log_mean_exp[i] = -infinity;
  if (count == 0) return;
  T sum = 0;
  for (int64_t j = 0; j < count; ++j) {
    sum += score[j];
    out.min[i] = std::min(out.min[i], score[j]);
    out.max[i] = std::max(out.max[i], score[j]);
  }
  out.mean[i] = sum / T(count);
  T squares = 0, exponentials = 0;
  for (int64_t j = 0; j < count; ++j) {
    squares += (score[j] - out.mean[i]) * (score[j] - out.mean[i]);
    exponentials += std::exp((score[j] - out.max[i]) / temperature);
  }
  if (count > 1) out.variance[i] = squares / T(count - 1);
  out.log_mean_exp[i] = out.max[i] / temperature + std::log(exponentials / T(count));
}

}  // namespace

template <class T>
Scores<T> score_statistics(const Inputs& in, std::vector<T> score, const std::vector<T>& q, const std::vector<T>& k,
                           const std::vector<T>& anchor) {
  const int64_t n = in.n, d = in.d;
  Scores<T> out;
  out.columns = static_cast<int64_t>(score.size()) / n;
  out.pos = row_products(q, k, n, d);
  out.rank_pos = rank_positives(in, q, k);
  out.tie.resize(n);
  for (auto* field : {&out.mean, &out.variance, &out.min, &out.max, &out.log_mean_exp}) field->resize(n);
  for (int64_t i = 0; i < n; ++i) {
    out.tie[i] = T(kTieEpsilons) * std::max(norm_of(&anchor[i * d], d), std::abs(out.rank_pos[i]));
    fill_row(score.data() + i * out.columns, out.columns, T(in.temperature), i, out);
  }
  out.score = std::move(score);
  return out;
}

template <class T>
int64_t count_greater(const Scores<T>& scores, int64_t row, double margin) {
  const double threshold = double(scores.rank_pos[row]) + double(scores.tie[row]) + margin;
  int64_t count = 0;
  for (int64_t j = 0; j < scores.columns; ++j) count += double(scores.score[row * scores.columns + j]) > threshold;
  return count;
}

template <class T>
int64_t count_greater_equal(const Scores<T>& scores, int64_t row, double margin) {
  const double threshold = double(scores.rank_pos[row]) - double(scores.tie[row]) + margin;
  int64_t count = 0;
  for (int64_t j = 0; j < scores.columns; ++j) count += double(scores.score[row * scores.columns + j]) >= threshold;
  return count;
}

template Scores<double> score_statistics(const Inputs&, std::vector<double>, const std::vector<double>&,
                                         const std::vector<double>&, const std::vector<double>&);
template Scores<float> score_statistics(const Inputs&, std::vector<float>, const std::vector<float>&,
                                        const std::vector<float>&, const std::vector<float>&);
template int64_t count_greater(const Scores<double>&, int64_t, double);
template int64_t count_greater_equal(const Scores<double>&, int64_t, double);

}  // namespace oracle
