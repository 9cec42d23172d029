// Weighted sums of 16-bit products.
#include "oracle/engine.h"

#include <cmath>
#include <type_traits>
#include <utility>

#include "oracle/operands.h"

namespace oracle {
template <class T>
std::vector<T> engine_weights(const Inputs& in, const std::vector<T>& of_columns) {
  if (!in.mixes_negatives()) return of_columns;
  std::vector<T> weights(2 * in.k, T(0));
  for (int64_t j = 0; j < in.k; ++j) {
    if (in.columns == Columns::kUnion) weights[j] += of_columns[in.k + j];
    if (in.mixes_as_row(j)) {
      weights[in.k + j] = of_columns[j];
      continue;
    }
    const T lambda = T(lambda_at(in.granularity_neg, in.lambda_neg, j, 0, in.d));
    weights[j] += lambda * of_columns[j];
    weights[in.permutation[j]] += (1 - lambda) * of_columns[j];
  }
  weights.insert(weights.end(), of_columns.begin() + in.queue_columns(), of_columns.end());
  return weights;
}

template <class T>
void engine_rows(const Inputs& in, Result<T>& out) {
  out.engine_rows = multiplied_queue<T>(in);
  if (in.mixes_negatives())
    out.engine_rows.insert(out.engine_rows.end(), out.negatives.begin(), out.negatives.begin() + in.k * in.d);
  out.engine_rows.insert(out.engine_rows.end(), out.negatives.begin() + in.queue_columns() * in.d, out.negatives.end());
}

template <class T>
void engine_sums(const Inputs& in, Result<T>& out) {
  const int64_t d = in.d, count = in.column_count();
  const Rounding rounding = weight_rounding(in);
  out.engine_sum.assign(in.n * d, T(0));
  for (int64_t i = 0; i < in.n; ++i) {
    if (out.partial_l[i] == 0) continue;  // a row without columns
    std::vector<T> of_columns(count);
    for (int64_t j = 0; j < count; ++j) of_columns[j] = std::exp(out.logit[i * count + j] - out.partial_m[i]);
    std::vector<T> weights = engine_weights(in, of_columns);
    const auto row = static_cast<int64_t>(weights.size());
    if (std::is_same_v<T, float>) weights = rounded_rows(rounding, std::move(weights), row);
    T* sum = &out.engine_sum[i * d];
    for (size_t j = 0; j < weights.size(); ++j)
      for (int64_t c = 0; weights[j] != 0 && c < d; ++c)
        sum[c] += weights[j] * out.engine_rows[static_cast<int64_t>(j) * d + c];
    // From weights relative to the largest negative to probabilities.
    for (int64_t c = 0; c < d; ++c) sum[c] *= out.pushed[i] / out.partial_l[i];
  }
}

template <class T>
T engine_entropy(const Inputs& in, T positive, int64_t i, const Result<T>& out) {
  T inner = 0;
  for (int64_t c = 0; c < in.d; ++c) inner += out.anchor[i * in.d + c] * out.engine_sum[i * in.d + c];
  T w = out.pushed[i];
  if (in.form == Form::kDecoupled) {  // the sum is that of P, not of the softmax with the positive
    w = -std::expm1(-out.cross_entropy[i]);
    inner *= w;
  }
  return out.cross_entropy[i] + w * positive - inner / T(in.temperature);
}

template std::vector<double> engine_weights(const Inputs&, const std::vector<double>&);
template std::vector<float> engine_weights(const Inputs&, const std::vector<float>&);
template void engine_rows(const Inputs&, Result<double>&);
template void engine_rows(const Inputs&, Result<float>&);
template void engine_sums(const Inputs&, Result<double>&);
template void engine_sums(const Inputs&, Result<float>&);
template double engine_entropy(const Inputs&, double, int64_t, const Result<double>&);
template float engine_entropy(const Inputs&, float, int64_t, const Result<float>&);

}  // namespace oracle
