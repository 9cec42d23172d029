// Conditions of the loss, its gradients and its scores: the formulas of the oracle with every term replaced by its
// magnitude, each weighted by the size of the relative error that reaches it.
#include "oracle/condition.h"

#include <algorithm>
#include <cmath>

#include "oracle/forward.h"

namespace oracle {
namespace {

// Errors below float32's smallest normal number are lost: a weight of 2^-103 times epsilon is that number.
constexpr double kUnderflow = 9.8607613152626476e-32;

using Rows = std::vector<double>;

// Magnitudes that enter the vectors: |q|, |k|, |lambda||q| + |1-lambda||k| and so on, after renormalisation.
struct Magnitudes {
  Rows q, k, q_mixed, k_mixed, anchor;                           // [N,D]
  Rows negatives;                                                // [columns,D]
  Rows q_norm, k_norm, q_mixed_norm, k_mixed_norm, anchor_norm;  // [N]
  Rows negative_norm, queue_norm;                                // [columns], [K]
};

Rows row_norms(const Rows& matrix, int64_t d) {
  Rows norms(matrix.size() / d);
  for (size_t i = 0; i < norms.size(); ++i) norms[i] = norm_of(&matrix[i * d], d);
  return norms;
}

Rows absolute(const Rows& values) {
  Rows out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), [](double x) { return std::abs(x); });
  return out;
}

Rows negative_magnitudes(const Inputs& in) {
  const int64_t d = in.d;
  if (in.columns == Columns::kQueue || !in.mixes_negatives()) return absolute(in.queue);
  Rows out(in.k * d), mixed(d);
  for (int64_t j = 0; j < in.k; ++j) {
    for (int64_t c = 0; c < d; ++c) {
      const double lambda = lambda_at(in.granularity_neg, in.lambda_neg, j, c, d);
      const double own = lambda * in.queue[j * d + c], other = (1 - lambda) * in.queue[in.permutation[j] * d + c];
      out[j * d + c] = std::abs(own) + std::abs(other);
      mixed[c] = own + other;
    }
    const double divisor = in.renormalize_neg ? std::max(norm_of(mixed.data(), d), in.epsilon) : 1.0;
    for (int64_t c = 0; c < d; ++c) out[j * d + c] /= divisor;
  }
  if (in.columns == Columns::kUnion) {
    const Rows queue = absolute(in.queue);
    out.insert(out.end(), queue.begin(), queue.end());
  }
  return out;
}

Magnitudes magnitudes_of(const Inputs& in, const Result<double>& r) {
  const int64_t n = in.n, d = in.d;
  Magnitudes m;
  m.q = absolute(r.q);
  m.k = absolute(r.k);
  m.q_mixed = m.q;
  m.k_mixed = m.k;
  for (int64_t i = 0; i < n; ++i) {
    const double q_divisor = in.renormalize_pos ? std::max(r.q_mixed_norm[i], in.epsilon) : 1.0;
    const double k_divisor = in.renormalize_pos ? std::max(r.k_mixed_norm[i], in.epsilon) : 1.0;
    for (int64_t c = 0; c < d; ++c) {
      const double lambda = lambda_at(in.granularity_pos, in.lambda_pos, i, c, d);
      const double own = std::abs(lambda), other = std::abs(1 - lambda);
      const double q = m.q[i * d + c], k = m.k[i * d + c];
      m.q_mixed[i * d + c] = (own * q + other * k) / q_divisor;
      m.k_mixed[i * d + c] = (own * k + other * q) / k_divisor;
    }
  }
  m.anchor = in.anchor == Anchor::kMixed ? m.q_mixed : m.q;
  m.negatives = negative_magnitudes(in);
  m.q_norm = row_norms(m.q, d);
  m.k_norm = row_norms(m.k, d);
  m.q_mixed_norm = row_norms(m.q_mixed, d);
  m.k_mixed_norm = row_norms(m.k_mixed, d);
  m.anchor_norm = row_norms(m.anchor, d);
  m.negative_norm = row_norms(m.negatives, d);
  m.queue_norm = row_norms(absolute(in.queue), d);
  return m;
}

// g of y = v / max(|v|, epsilon) in magnitudes.
void normalize_backward(const double* y, double norm, double epsilon, int64_t d, double* g) {
  double inner = 0;
  for (int64_t c = 0; c < d; ++c) inner += g[c] * y[c];
  for (int64_t c = 0; c < d; ++c) g[c] = norm >= epsilon ? (g[c] + inner * y[c]) / norm : g[c] / epsilon;
}

// `shift` is the absolute error of LSE - s+; it moves w = 1 - p+ by the factor 1 - w = p+ of its relative size. The share
// of a column in the softmax adds the error of its own score and of the average score.
void row_condition(const Inputs& in, const Result<double>& r, const Magnitudes& m, int64_t i, Condition& out) {
  const int64_t d = in.d, count = in.column_count();
  const double tau = in.temperature, scale = std::abs(row_scale(in, i));
  const double positive = m.q_mixed_norm[i] * m.k_mixed_norm[i] / tau;
  double negative = 0;
  for (int64_t j = 0; j < count; ++j) {
    const double share = std::exp(r.mixed.score[i * count + j] / tau - r.log_sum_exp[i]);
    negative += share * m.anchor_norm[i] * m.negative_norm[j] / tau;
  }
  const double lse = count > 0 ? std::abs(r.log_sum_exp[i]) : 0;
  const double shift = 1 + std::log(1.0 + double(count)) + lse + negative + positive;
  const double pushed = r.pushed[i] + kUnderflow;
  const double w_error = 1 + std::exp(-r.row_loss[i]) * shift;
  const double loss = pushed * shift + r.row_loss[i];
  Rows g_anchor(d, 0), g_q(d, 0), g_k(d, 0), g_q_mixed(d), g_k_mixed(d);
  double g_tau = pushed * (w_error + 1) * positive / tau;
  for (int64_t j = 0; j < count; ++j) {
    const double score = m.anchor_norm[i] * m.negative_norm[j] / tau;
    const double p = (r.probability[i * count + j] + kUnderflow / double(count)) * (w_error + negative + score);
    g_tau += p * score / tau;
    for (int64_t c = 0; c < d; ++c) g_anchor[c] += p * m.negatives[j * d + c] / tau;
  }
  for (int64_t c = 0; c < d; ++c) {
    g_q_mixed[c] = pushed * w_error * m.k_mixed[i * d + c] / tau;
    g_k_mixed[c] = pushed * w_error * m.q_mixed[i * d + c] / tau;
    (in.anchor == Anchor::kMixed ? g_q_mixed : g_q)[c] += g_anchor[c];
  }
  if (in.renormalize_pos) {
    normalize_backward(&m.q_mixed[i * d], r.q_mixed_norm[i], in.epsilon, d, g_q_mixed.data());
    normalize_backward(&m.k_mixed[i * d], r.k_mixed_norm[i], in.epsilon, d, g_k_mixed.data());
  }
  for (int64_t c = 0; c < d; ++c) {
    const double lambda = lambda_at(in.granularity_pos, in.lambda_pos, i, c, d);
    const double own = std::abs(lambda), other = std::abs(1 - lambda);
    g_q[c] += own * g_q_mixed[c] + other * g_k_mixed[c];
    g_k[c] += other * g_q_mixed[c] + own * g_k_mixed[c];
  }
  if (in.normalize) {
    normalize_backward(&m.q[i * d], r.q_norm[i], in.epsilon, d, g_q.data());
    normalize_backward(&m.k[i * d], r.k_norm[i], in.epsilon, d, g_k.data());
  }
  for (int64_t c = 0; c < d; ++c) {
    out.dq[i * d + c] = scale * g_q[c];
    out.dk[i * d + c] = scale * g_k[c];
  }
  out.loss[i] = (in.weight.empty() ? 1.0 : std::abs(in.weight[i])) * loss;
  out.dtemperature_rows[i] = scale * g_tau;
  out.entropy[i] = loss + tau * g_tau;
}

struct ScoreSides {
  const Rows& anchor_norm;  // [N] magnitudes
  const Rows& column_norm;  // [columns]
  const Rows& q_norm;       // [N] the two sides of the positive
  const Rows& k_norm;       // [N]
};

ScoreCondition score_condition(const Inputs& in, const Scores<double>& scores, const ScoreSides& sides) {
  ScoreCondition out;
  for (auto* field : {&out.pos, &out.largest, &out.mean, &out.log_mean_exp}) field->assign(in.n, 0);
  for (int64_t i = 0; i < in.n; ++i) {
    out.pos[i] = 2 * sides.q_norm[i] * sides.k_norm[i];  // both factors are results of (1) and (2)
    double weighted = 0;
    for (int64_t j = 0; j < scores.columns; ++j) {
      const double size = sides.anchor_norm[i] * sides.column_norm[j];
      const double count = double(scores.columns);
      out.largest[i] = std::max(out.largest[i], size);
      out.mean[i] += size / count;
      const double logit = scores.score[i * scores.columns + j] / in.temperature;
      weighted += std::exp(logit - scores.log_mean_exp[i]) / count * size / in.temperature;
    }
    if (scores.columns == 0) continue;
    const double log_count = std::log(1.0 + double(scores.columns));
    out.log_mean_exp[i] = 1 + 2 * log_count + std::abs(scores.log_mean_exp[i]) + weighted;
  }
  return out;
}

}  // namespace

Condition condition_of(const Inputs& in, const Result<double>& r) {
  const Magnitudes m = magnitudes_of(in, r);
  Condition out;
  for (auto* rows : {&out.loss, &out.dtemperature_rows, &out.entropy}) rows->assign(in.n, 0);
  for (auto* matrix : {&out.dq, &out.dk}) matrix->assign(in.n * in.d, 0);
  for (int64_t i = 0; i < in.n; ++i) row_condition(in, r, m, i, out);
  out.mixed = score_condition(in, r.mixed, {m.anchor_norm, m.negative_norm, m.q_mixed_norm, m.k_mixed_norm});
  out.unmixed = score_condition(in, r.unmixed, {m.anchor_norm, m.queue_norm, m.q_norm, m.k_norm});
  out.plain = score_condition(in, r.plain, {m.q_norm, m.queue_norm, m.q_norm, m.k_norm});
  return out;
}

}  // namespace oracle
