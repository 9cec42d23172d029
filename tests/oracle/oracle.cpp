// Equations (7)-(9) of the oracle: softmax, loss, gradients by the chain rule through the softmax probabilities.
#include "oracle/oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "oracle/engine.h"
#include "oracle/forward.h"
#include "oracle/operands.h"
#include "oracle/scores.h"

namespace oracle {
namespace {

bool finite_range(const std::vector<double>& values, int64_t first, int64_t count) {
  return std::all_of(values.begin() + first, values.begin() + first + count, [](double x) { return std::isfinite(x); });
}

bool all_finite(const std::vector<double>& values) { return finite_range(values, 0, int64_t(values.size())); }

// The non-finite rule of the API: what was not finite in any input of a row is never finite in its results. What is
// not finite in the negatives reaches every row.
bool row_is_finite(const Inputs& in, int64_t i) {
  if (!finite_range(in.x_q, i * in.d, in.d) || !finite_range(in.x_k, i * in.d, in.d)) return false;
  if (!in.weight.empty() && !std::isfinite(in.weight[i])) return false;
  switch (in.granularity_pos) {
    case Granularity::kNone: return true;
    case Granularity::kRow: return std::isfinite(in.lambda_pos[i]);
    case Granularity::kElement: return finite_range(in.lambda_pos, i * in.d, in.d);
    case Granularity::kCall:
    case Granularity::kDimension: return all_finite(in.lambda_pos);
  }
  return true;
}

// Softmax of one row over its columns and the positive, the loss, and the running softmax over the columns alone.
// `logit` has `count` entries. Without columns the positive has probability 1 and the loss is 0.
template <class T>
void softmax_row(const Inputs& in, const T* logit, T positive, int64_t i, Result<T>& out) {
  const int64_t count = in.column_count();
  T* probability = out.probability.data() + i * count;
  T negative_max = T(-1e30);
  for (int64_t j = 0; j < count; ++j) negative_max = std::max(negative_max, logit[j]);
  T negative_sum = 0;
  for (int64_t j = 0; j < count; ++j) negative_sum += std::exp(logit[j] - negative_max);
  out.partial_m[i] = negative_max;
  out.partial_l[i] = negative_sum;
  out.log_sum_exp[i] = count > 0 ? negative_max + std::log(negative_sum) : -std::numeric_limits<T>::infinity();
  const T top = std::max(negative_max, positive);
  T others = 0;
  for (int64_t j = 0; j < count; ++j) {
    probability[j] = std::exp(logit[j] - top);
    others += probability[j];
  }
  const T all = others + std::exp(positive - top);
  for (int64_t j = 0; j < count; ++j) probability[j] /= all;
  out.pushed[i] = others / all;
  // log of all over the positive; log1p where the positive is the largest, so that a small loss has digits.
  out.row_loss[i] = top == positive ? std::log1p(others) : top - positive + std::log(all);
}

// g_v of y = v / max(|v|, epsilon).
template <class T>
void normalize_backward(const T* y, T norm, T epsilon, int64_t d, T* g) {
  T inner = 0;
  for (int64_t c = 0; c < d; ++c) inner += g[c] * y[c];
  for (int64_t c = 0; c < d; ++c) g[c] = norm >= epsilon ? (g[c] - inner * y[c]) / norm : g[c] / epsilon;
}

// Chain rule of one row, upstream gradient `scale`: from the logits to x_q, x_k and the temperature.
template <class T>
void backward_row(const Inputs& in, const T* logit, T positive, T scale, int64_t i, Result<T>& out) {
  const int64_t d = in.d, count = in.column_count();
  const T tau = T(in.temperature), epsilon = T(in.epsilon);
  const T g_positive = -scale * out.pushed[i];
  std::vector<T> g_anchor(d, T(0)), g_q(d, T(0)), g_k(d, T(0)), g_q_mixed(d), g_k_mixed(d);
  T g_tau = -g_positive * positive / tau;
  if (in.rounds_anchor()) {
    for (int64_t c = 0; c < d; ++c) {
      g_anchor[c] = scale * out.engine_sum[i * d + c] / tau;
      g_tau -= out.anchor[i * d + c] * g_anchor[c] / tau;
    }
  } else {
    for (int64_t j = 0; j < count; ++j) {
      const T g_logit = scale * out.probability[i * count + j];
      for (int64_t c = 0; c < d; ++c) g_anchor[c] += g_logit * out.negatives[j * d + c] / tau;
      g_tau -= g_logit * logit[j] / tau;
    }
  }
  for (int64_t c = 0; c < d; ++c) {
    g_q_mixed[c] = g_positive * out.k_mixed[i * d + c] / tau;
    g_k_mixed[c] = g_positive * out.q_mixed[i * d + c] / tau;
    (in.anchor == Anchor::kMixed ? g_q_mixed : g_q)[c] += g_anchor[c];
  }
  if (in.renormalize_pos) {
    normalize_backward(&out.q_mixed[i * d], out.q_mixed_norm[i], epsilon, d, g_q_mixed.data());
    normalize_backward(&out.k_mixed[i * d], out.k_mixed_norm[i], epsilon, d, g_k_mixed.data());
  }
  for (int64_t c = 0; c < d; ++c) {
    const T lambda = T(lambda_at(in.granularity_pos, in.lambda_pos, i, c, d));
    g_q[c] += lambda * g_q_mixed[c] + (1 - lambda) * g_k_mixed[c];
    g_k[c] += (1 - lambda) * g_q_mixed[c] + lambda * g_k_mixed[c];
  }
  if (in.normalize) {
    normalize_backward(&out.q[i * d], out.q_norm[i], epsilon, d, g_q.data());
    normalize_backward(&out.k[i * d], out.k_norm[i], epsilon, d, g_k.data());
  }
  std::copy(g_q.begin(), g_q.end(), out.dq.begin() + i * d);
  std::copy(g_k.begin(), g_k.end(), out.dk.begin() + i * d);
  out.dtemperature_rows[i] = g_tau;
}

// H of the softmax over all columns, directly; 0 log 0 is 0. The positive's probability is exp(-loss).
template <class T>
T entropy_row(const T* probability, int64_t count, T loss) {
  T sum = 0;
  for (int64_t j = 0; j < count; ++j)
    if (probability[j] > 0) sum -= probability[j] * std::log(probability[j]);
  return std::isinf(loss) ? sum : sum + loss * std::exp(-loss);
}

template <class T>
void partial_output(const Inputs& in, const std::vector<T>& logit, Result<T>& out) {
  const int64_t d = in.d, count = in.column_count();
  for (int64_t i = 0; i < in.n; ++i)
    for (int64_t j = 0; j < count; ++j) {
      const T p = std::exp(logit[i * count + j] - out.partial_m[i]);
      for (int64_t c = 0; c < d; ++c) out.partial_o[i * d + c] += p * out.negatives[j * d + c];
    }
}

template <class T>
void resize_rows(const Inputs& in, Result<T>& out) {
  for (auto* rows : {&out.log_sum_exp, &out.pushed, &out.row_loss, &out.loss_rows, &out.dtemperature_rows, &out.entropy,
                     &out.dq_norm, &out.partial_m, &out.partial_l})
    rows->assign(in.n, T(0));
  for (auto* matrix : {&out.dq, &out.dk, &out.partial_o}) matrix->assign(in.n * in.d, T(0));
  out.probability.assign(in.n * in.column_count(), T(0));
}

template <class T>
void reduce(const Inputs& in, Result<T>& out) {
  if (in.reduction == Reduction::kNone) {
    out.loss = out.loss_rows;
  } else {
    T sum = 0;
    for (const T row : out.loss_rows) sum += row;
    out.loss = {in.reduction == Reduction::kMean ? sum / T(in.n) : sum};
  }
  for (const T row : out.dtemperature_rows) out.dtemperature += row;
}

}  // namespace

double row_scale(const Inputs& in, int64_t row) {
  const double weight = in.weight.empty() ? 1.0 : in.weight[row];
  return in.reduction == Reduction::kMean ? weight / double(in.n) : weight;
}

template <class T>
Result<T> evaluate(const Inputs& in) {
  const int64_t n = in.n, d = in.d, count = in.column_count();
  const T tau = T(in.temperature), nan = std::numeric_limits<T>::quiet_NaN();
  const bool negatives_finite = all_finite(in.queue) && all_finite(in.lambda_neg);
  Result<T> out;
  embed(in, out);
  out.negatives = negative_columns<T>(in);
  resize_rows(in, out);
  const std::vector<T> score = inner_products(out.scoring, out.negatives, n, d);
  const std::vector<T> pos = row_products(out.q_mixed, out.k_mixed, n, d);
  std::vector<T> logit(score.size());
  std::transform(score.begin(), score.end(), logit.begin(), [&](T s) { return s / tau; });
  for (int64_t i = 0; i < n; ++i) softmax_row(in, logit.data() + i * count, pos[i] / tau, i, out);
  if (in.products != Products::kFloat32) engine_rows(in, out);
  if (in.rounds_anchor()) engine_sums(in, logit, out);
  for (int64_t i = 0; i < n; ++i) {
    const T scale = T(row_scale(in, i)), positive = pos[i] / tau;
    out.entropy[i] = in.rounds_anchor() ? engine_entropy(in, positive, i, out)
                                        : entropy_row(out.probability.data() + i * count, count, out.row_loss[i]);
    if (scale == 0) continue;  // exactly 0, whatever the row holds
    out.loss_rows[i] = (in.weight.empty() ? T(1) : T(in.weight[i])) * out.row_loss[i];
    backward_row(in, logit.data() + i * count, positive, scale, i, out);
    if (!negatives_finite || !row_is_finite(in, i)) {
      out.loss_rows[i] = out.dtemperature_rows[i] = out.entropy[i] = nan;
      std::fill_n(out.dq.begin() + i * d, d, nan);
      std::fill_n(out.dk.begin() + i * d, d, nan);
    }
    out.dq_norm[i] = norm_of(&out.dq[i * d], d);
  }
  partial_output(in, logit, out);
  reduce(in, out);
  const std::vector<T> plain = rounded_rows(anchor_rounding(in), out.q, d);
  out.mixed = score_statistics(in, score, out.q_mixed, out.k_mixed, out.anchor);
  out.unmixed =
      score_statistics(in, inner_products(out.scoring, multiplied_queue<T>(in), n, d), out.q, out.k, out.anchor);
  out.plain = score_statistics(in, inner_products(plain, queue_of_scores<T>(in), n, d), out.q, out.k, out.q);
  return out;
}

double total_loss(const Inputs& in) {
  Result<double> out;
  embed(in, out);
  out.negatives = negative_columns<double>(in);
  resize_rows(in, out);
  std::vector<double> logit = inner_products(out.scoring, out.negatives, in.n, in.d);
  for (double& s : logit) s /= in.temperature;
  const std::vector<double> pos = row_products(out.q_mixed, out.k_mixed, in.n, in.d);
  double sum = 0;
  for (int64_t i = 0; i < in.n; ++i) {
    softmax_row(in, logit.data() + i * in.column_count(), pos[i] / in.temperature, i, out);
    if (row_scale(in, i) != 0) sum += row_scale(in, i) * out.row_loss[i];
  }
  return sum;
}

template Result<double> evaluate(const Inputs&);
template Result<float> evaluate(const Inputs&);

}  // namespace oracle
