// Conditions of the loss, its gradients and its scores: the formulas of the oracle with every term replaced by its
// magnitude, each weighted by the size of the relative error that reaches it.
#include "oracle/condition.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "oracle/forward.h"
#include "oracle/magnitudes.h"
#include "oracle/rounding.h"

namespace oracle {
namespace {

// Errors below float32's smallest normal number are lost: a weight of 2^-103 times epsilon is that number.
constexpr double kUnderflow = 9.8607613152626476e-32;

// `shift` is the absolute error of LSE - s+; it moves w = 1 - p+ by the factor 1 - w = p+ of its relative size. The
// share of a column in the softmax adds the error of its own score and of the average score.
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
  RowBounds bounds(d);
  double g_tau = pushed * (w_error + 1) * positive / tau;
  for (int64_t j = 0; j < count; ++j) {
    const double score = m.anchor_norm[i] * m.negative_norm[j] / tau;
    const double p = (r.probability[i * count + j] + kUnderflow / double(count)) * (w_error + negative + score);
    g_tau += p * score / tau;
    for (int64_t c = 0; c < d; ++c) bounds.anchor[c] += p * m.negatives[j * d + c] / tau;
  }
  for (int64_t c = 0; c < d; ++c) {
    bounds.q_mixed[c] = pushed * w_error * m.k_mixed[i * d + c] / tau;
    bounds.k_mixed[c] = pushed * w_error * m.q_mixed[i * d + c] / tau;
  }
  propagate(in, r, m, i, std::move(bounds), out.dq, out.dk);
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

// y = v / |v| moves by the errors of v, and along itself by those of |v|; a norm of terms that cancel has few digits.
void anchor_condition(const Inputs& in, const Result<double>& r, const Magnitudes& m, int64_t i, StepCondition& out) {
  const int64_t d = in.d;
  double norm_error = 0;
  if (in.renormalize_pos && in.anchor == Anchor::kMixed)
    for (int64_t c = i * d; c < (i + 1) * d; ++c) norm_error += std::abs(r.anchor[c]) * m.anchor[c];
  for (int64_t c = i * d; c < (i + 1) * d; ++c) out.anchor[c] = m.anchor[c] + std::abs(r.anchor[c]) * norm_error;
}

// As the loss's part of the negatives: a column's share moves with its own score and with the average one.
void softmax_condition(const Inputs& in, const Result<double>& r, const Magnitudes& m, int64_t i, StepCondition& out) {
  const int64_t d = in.d, count = in.column_count();
  if (count == 0) return;
  std::vector<double> share(count), size(count);
  double average = 0;
  for (int64_t j = 0; j < count; ++j) {
    share[j] = std::exp(r.mixed.score[i * count + j] / in.temperature - r.log_sum_exp[i]);
    size[j] = m.anchor_norm[i] * m.negative_norm[j] / in.temperature;
    average += share[j] * size[j];
  }
  const double sum = 1 + std::log(1.0 + double(count));
  out.log_sum_exp[i] = sum + std::abs(r.log_sum_exp[i]) + average;
  for (int64_t j = 0; j < count; ++j)
    for (int64_t c = 0; c < d; ++c)
      out.mean[i * d + c] += share[j] * (sum + average + size[j]) * m.negatives[j * d + c];
}

}  // namespace

Condition condition_of(const Inputs& in, const Result<double>& r) {
  const Magnitudes m = magnitudes_of(in, r);
  Condition out;
  for (auto* rows : {&out.loss, &out.dtemperature_rows, &out.entropy}) rows->assign(in.n, 0);
  for (auto* matrix : {&out.dq, &out.dk, &out.steps.anchor, &out.steps.mean}) matrix->assign(in.n * in.d, 0);
  out.steps.log_sum_exp.assign(in.n, 0);
  for (int64_t i = 0; i < in.n; ++i) {
    row_condition(in, r, m, i, out);
    anchor_condition(in, r, m, i, out.steps);
    softmax_condition(in, r, m, i, out.steps);
  }
  out.mixed = score_condition(in, r.mixed, {m.anchor_norm, m.negative_norm, m.q_mixed_norm, m.k_mixed_norm});
  out.unmixed = score_condition(in, r.unmixed, {m.anchor_norm, m.queue_norm, m.q_norm, m.k_norm});
  out.plain = score_condition(in, r.plain, {m.q_norm, m.queue_norm, m.q_norm, m.k_norm});
  add_roundings(in, r, m, out);
  return out;
}

}  // namespace oracle
