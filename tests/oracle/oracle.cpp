// Equations (7)-(9) and (16) of the oracle: softmax, loss, gradients by the chain rule through the softmax
// probabilities.
#include "oracle/oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "oracle/columns.h"
#include "oracle/engine.h"
#include "oracle/forward.h"
#include "oracle/operands.h"
#include "oracle/scores.h"

namespace oracle {
namespace {

// The non-finite rule of the API: what was not finite in any input of a row is never finite in its results, and neither
// is what was not finite in a column that counts for it.
bool features_are_finite(const Inputs& in, int64_t i) {
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

std::vector<char> finite_rows(const Inputs& in, const Counting& counting) {
  const int64_t count = in.column_count();
  std::vector<char> columns(count), rows(in.n);
  for (int64_t j = 0; j < count; ++j) columns[j] = column_is_finite(in, j);
  for (int64_t i = 0; i < in.n; ++i) {
    rows[i] = features_are_finite(in, i);
    for (int64_t j = 0; j < count; ++j)
      if (counting.mixed[i * count + j] && !columns[j]) rows[i] = 0;
  }
  return rows;
}

// Softmax of one row over its columns and the positive, the loss, and the running softmax over the columns alone.
// Without columns the positive has probability 1 and the loss is 0.
template <class T>
void softmax_row(const Inputs& in, T positive, int64_t i, Result<T>& out) {
  const int64_t count = in.column_count();
  const T* logit = out.logit.data() + i * count;
  T* probability = out.probability.data() + i * count;
  T negative_max = T(-1e30);
  for (int64_t j = 0; j < count; ++j) negative_max = std::max(negative_max, logit[j]);
  T negative_sum = 0;
  for (int64_t j = 0; j < count; ++j) negative_sum += std::exp(logit[j] - negative_max);
  out.partial_m[i] = negative_max;
  out.partial_l[i] = negative_sum;
  const char* counts = out.counting.mixed.data() + i * count;
  const bool any = std::any_of(counts, counts + count, [](char c) { return c != 0; });
  out.log_sum_exp[i] = any ? negative_max + std::log(negative_sum) : -std::numeric_limits<T>::infinity();
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
  out.row_loss[i] = out.cross_entropy[i] = top == positive ? std::log1p(others) : top - positive + std::log(all);
  out.normalizer[i] = top + std::log(all);
  if (in.form == Form::kInfoNce) return;
  for (int64_t j = 0; j < count; ++j) probability[j] = any ? std::exp(logit[j] - negative_max) / negative_sum : T(0);
  out.pushed[i] = any ? T(1) : T(0);
  out.row_loss[i] = any ? out.log_sum_exp[i] - positive : T(0);
  out.normalizer[i] = out.log_sum_exp[i];
}

// Fills negatives, the scores of the loss, which columns count, and equations (15) and (7); returns the scores.
template <class T>
std::vector<T> forward(const Inputs& in, Result<T>& out) {
  const int64_t n = in.n, count = in.column_count();
  const T tau = T(in.temperature);
  out.negatives = negative_columns<T>(in);
  std::vector<T> score = inner_products(out.scoring, out.negatives, n, in.d);
  const std::vector<T> pos = row_products(out.q_mixed, out.k_mixed, n, in.d);
  out.counting = in.counting.mixed.empty() ? counting_of(in) : in.counting;
  out.logit.assign(score.size(), -std::numeric_limits<T>::infinity());
  const std::vector<T> bias = bias_of_loss<T>(in);
  for (int64_t s = 0; s < n * count; ++s)
    if (out.counting.mixed[s]) out.logit[s] = score[s] / tau + bias[s % count];
  for (int64_t i = 0; i < n; ++i) softmax_row(in, pos[i] / tau, i, out);
  return score;
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
void backward_row(const Inputs& in, const T* score, T positive, T scale, int64_t i, Result<T>& out) {
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
      if (g_logit == 0) continue;  // a column that does not count may hold anything
      for (int64_t c = 0; c < d; ++c) g_anchor[c] += g_logit * out.negatives[j * d + c] / tau;
      g_tau -= g_logit * (score[j] / tau) / tau;
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

// H of the softmax over all columns and the positive, directly; 0 log 0 is 0. The positive's probability is exp(-loss)
// with the loss that is not decoupled, and P has the rest.
template <class T>
T entropy_row(const Inputs& in, int64_t i, const Result<T>& out) {
  const T loss = out.cross_entropy[i], others = in.form == Form::kDecoupled ? -std::expm1(-loss) : T(1);
  T sum = 0;
  for (int64_t j = i * in.column_count(); j < (i + 1) * in.column_count(); ++j) {
    const T p = out.probability[j] * others;
    if (p > 0) sum -= p * std::log(p);
  }
  return std::isinf(loss) ? sum : sum + loss * std::exp(-loss);
}

template <class T>
void partial_output(const Inputs& in, Result<T>& out) {
  const int64_t d = in.d, count = in.column_count();
  for (int64_t i = 0; i < in.n; ++i)
    for (int64_t j = 0; j < count; ++j) {
      if (!out.counting.mixed[i * count + j]) continue;
      const T p = std::exp(out.logit[i * count + j] - out.partial_m[i]);
      for (int64_t c = 0; c < d; ++c) out.partial_o[i * d + c] += p * out.negatives[j * d + c];
    }
}

// u_i omega_i P_ij of batch column j, [N]; 0 where row i has nothing to say to it.
template <class T>
std::vector<T> weights_of_batch_column(const Inputs& in, int64_t j, const std::vector<char>& finite_row,
                                       const Result<T>& out) {
  const int64_t count = in.column_count(), column = in.queue_columns() + j;
  std::vector<T> weights(in.n, T(0));
  for (int64_t i = 0; i < in.n; ++i) {
    const T scale = T(row_scale(in, i)) * T(upstream_of(in, i));
    if (scale == 0 || !out.counting.mixed[i * count + column]) continue;  // whatever the row holds
    const bool finite = finite_row[i] && std::isfinite(scale);
    weights[i] = finite ? scale * out.probability[i * count + column] : std::numeric_limits<T>::quiet_NaN();
  }
  const Rounding rounding = weight_rounding(in);
  T top = 0;
  for (const T weight : weights) top = std::max(top, std::abs(weight));
  if (!std::is_same_v<T, float> || !rounding.any() || !(top > 0)) return weights;
  for (T& weight : weights) weight /= top;
  weights = rounded_rows(rounding, std::move(weights), in.n);
  for (T& weight : weights) weight *= top;
  return weights;
}

// Equation (16), and (8) through the normalisation. Engines of 16-bit products multiply the anchors that they score
// with.
template <class T>
void batch_gradient(const Inputs& in, const std::vector<char>& finite_row, Result<T>& out) {
  const int64_t d = in.d;
  out.dx_c.assign(in.c * d, T(0));
  for (int64_t j = 0; j < in.c; ++j) {
    const std::vector<T> weights = weights_of_batch_column(in, j, finite_row, out);
    // A column that no row has may hold anything.
    if (std::all_of(weights.begin(), weights.end(), [](T weight) { return weight == 0; })) continue;
    for (int64_t i = 0; i < in.n; ++i)
      for (int64_t c = 0; weights[i] != 0 && c < d; ++c)
        out.dx_c[j * d + c] += weights[i] * out.scoring[i * d + c] / T(in.temperature);
    if (in.normalize) normalize_backward(&out.batch[j * d], out.batch_norm[j], T(in.epsilon), d, &out.dx_c[j * d]);
  }
}

template <class T>
void resize_rows(const Inputs& in, Result<T>& out) {
  for (auto* rows : {&out.log_sum_exp, &out.pushed, &out.row_loss, &out.loss_rows, &out.dtemperature_rows, &out.entropy,
                     &out.dq_norm, &out.partial_m, &out.partial_l, &out.normalizer, &out.cross_entropy})
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

double upstream_of(const Inputs& in, int64_t row) {
  return in.upstream.size() == 1 ? in.upstream[0] : in.upstream[row];
}

template <class T>
Result<T> evaluate(const Inputs& in) {
  const int64_t n = in.n, d = in.d, count = in.column_count();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  Result<T> out;
  embed(in, out);
  resize_rows(in, out);
  const std::vector<T> score = forward(in, out);
  const std::vector<T> pos = row_products(out.q_mixed, out.k_mixed, n, d);
  const std::vector<char> finite = finite_rows(in, out.counting);
  if (rounds_operands(in)) engine_rows(in, out);
  if (in.rounds_anchor()) engine_sums(in, out);
  for (int64_t i = 0; i < n; ++i) {
    const T scale = T(row_scale(in, i)), positive = pos[i] / T(in.temperature);
    out.entropy[i] = in.rounds_anchor() ? engine_entropy(in, positive, i, out) : entropy_row(in, i, out);
    if (!finite[i]) out.normalizer[i] = nan;
    if (scale == 0) continue;  // exactly 0, whatever the row holds
    out.loss_rows[i] = (in.weight.empty() ? T(1) : T(in.weight[i])) * out.row_loss[i];
    backward_row(in, score.data() + i * count, positive, scale, i, out);
    if (!finite[i]) {
      out.loss_rows[i] = out.dtemperature_rows[i] = out.entropy[i] = nan;
      std::fill_n(out.dq.begin() + i * d, d, nan);
      std::fill_n(out.dk.begin() + i * d, d, nan);
    }
    out.dq_norm[i] = norm_of(&out.dq[i * d], d);
  }
  partial_output(in, out);
  batch_gradient(in, finite, out);
  reduce(in, out);
  const std::vector<T> plain = rounded_rows(anchor_rounding(in), out.q, d), bias = bias_of_raw<T>(in);
  const std::vector<T> raw = raw_columns(in, multiplied_queue<T>(in)),
                       raw_plain = raw_columns(in, queue_of_scores<T>(in));
  out.mixed =
      score_statistics(in, {score, out.counting.mixed, bias_of_loss<T>(in)}, out.q_mixed, out.k_mixed, out.anchor);
  out.unmixed = score_statistics(in, {inner_products(out.scoring, raw, n, d), out.counting.unmixed, bias}, out.q, out.k,
                                 out.anchor);
  out.plain =
      score_statistics(in, {inner_products(plain, raw_plain, n, d), out.counting.plain, bias}, out.q, out.k, out.q);
  return out;
}

double total_loss(const Inputs& in) {
  Result<double> out;
  embed(in, out);
  resize_rows(in, out);
  forward(in, out);
  double sum = 0;
  for (int64_t i = 0; i < in.n; ++i)
    if (row_scale(in, i) != 0) sum += upstream_of(in, i) * row_scale(in, i) * out.row_loss[i];
  return sum;
}

template Result<double> evaluate(const Inputs&);
template Result<float> evaluate(const Inputs&);

}  // namespace oracle
