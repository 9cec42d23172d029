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

// What a row's columns mean for its errors: how many count, and how far a unit of relative error moves their logits.
struct RowColumns {
  RowColumns(const Inputs& in, const Result<double>& r, const Magnitudes& m, int64_t i)
      : score(in.column_count(), 0), logit(score), share(score), count(r.mixed.count[i]) {
    for (int64_t j = 0; j < in.column_count(); ++j) {
      if (!r.counting.mixed[i * in.column_count() + j]) continue;
      score[j] = m.anchor_norm[i] * m.negative_norm[j] / in.temperature;
      logit[j] = score[j] + std::abs(r.mixed.bias[j]);
      share[j] = std::exp(r.logit[i * in.column_count() + j] - r.log_sum_exp[i]);
      average += share[j] * logit[j];
    }
    sum = 1 + std::log(1.0 + double(count));
    if (count > 0) log_sum_exp = sum + std::abs(r.log_sum_exp[i]) + average;
  }
  std::vector<double> score, logit;  // [columns] of a.z / tau, and with the bias; 0 where a column does not count
  std::vector<double> share;         // [columns] of the softmax over the columns alone
  int64_t count;
  double average = 0;  // of logit, by share
  double sum = 0;      // of a sum over the columns
  double log_sum_exp = 0;
};

// `shift` is the absolute error of LSE - s+; it moves w = 1 - p+ by the factor 1 - w = p+ of its relative size. The
// share of a column in the softmax adds the error of its own score and of the average score. A decoupled w is exact.
void row_condition(const Inputs& in, const Result<double>& r, const Magnitudes& m, const RowColumns& columns, int64_t i,
                   Condition& out) {
  const int64_t d = in.d, count = in.column_count();
  const double tau = in.temperature, scale = std::abs(row_scale(in, i));
  const double positive = m.q_mixed_norm[i] * m.k_mixed_norm[i] / tau;
  const double shift = std::max(columns.log_sum_exp, columns.sum) + positive;
  const double pushed = r.pushed[i] + kUnderflow;
  const double w_error = 1 + (in.form == Form::kDecoupled ? 0 : std::exp(-r.row_loss[i]) * shift);
  const double loss = pushed * shift + std::abs(r.row_loss[i]);
  RowBounds bounds(d);
  double g_tau = pushed * (w_error + 1) * positive / tau;
  for (int64_t j = 0; j < count; ++j) {
    if (!r.counting.mixed[i * count + j]) continue;
    const double relative = w_error + columns.average + columns.logit[j];
    const double p = (r.probability[i * count + j] + kUnderflow / double(columns.count)) * relative;
    g_tau += p * columns.score[j] / tau;
    for (int64_t c = 0; c < d; ++c) bounds.anchor[c] += p * m.negatives[j * d + c] / tau;
  }
  for (int64_t c = 0; c < d; ++c) {
    bounds.q_mixed[c] = pushed * w_error * m.k_mixed[i * d + c] / tau;
    bounds.k_mixed[c] = pushed * w_error * m.q_mixed[i * d + c] / tau;
  }
  propagate(in, r, m, i, std::move(bounds), out.dq, out.dk);
  out.loss[i] = (in.weight.empty() ? 1.0 : std::abs(in.weight[i])) * loss;
  out.dtemperature_rows[i] = scale * g_tau;
  // The entropy is that of the softmax with the positive, whatever the form.
  out.entropy[i] = pushed * shift + r.cross_entropy[i] + tau * g_tau;
  out.normalizer[i] = in.form == Form::kDecoupled ? columns.log_sum_exp : loss + positive + std::abs(r.normalizer[i]);
}

// Adds what row i sends to the batch columns: weights exp(s - L), times u and omega, whose logarithm may stand in the
// exponent.
void batch_condition(const Inputs& in, const Result<double>& r, const Magnitudes& m, const RowColumns& columns,
                     int64_t i, Condition& out) {
  const int64_t d = in.d, first = in.queue_columns();
  const double scale = std::abs(row_scale(in, i) * upstream_of(in, i));
  if (scale == 0 || !std::isfinite(scale)) return;
  const double common = 1 + std::log(1.0 + double(in.n)) + out.normalizer[i] + std::abs(std::log(scale));
  for (int64_t j = 0; j < in.c; ++j) {
    if (!r.counting.mixed[i * in.column_count() + first + j]) continue;
    const double p = scale * r.probability[i * in.column_count() + first + j] + kUnderflow / double(in.n);
    const double weight = p * (common + columns.logit[first + j]) / in.temperature;
    for (int64_t c = 0; c < d; ++c) out.dx_c[j * d + c] += weight * m.anchor[i * d + c];
  }
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
    const double count = double(scores.count[i]);
    double weighted = 0;
    for (int64_t j = 0; j < scores.columns; ++j) {
      if (!scores.counts[i * scores.columns + j]) continue;
      const double size = sides.anchor_norm[i] * sides.column_norm[j];
      out.largest[i] = std::max(out.largest[i], size);
      out.mean[i] += size / count;
      const double logit = scores.score[i * scores.columns + j] / in.temperature + scores.bias[j];
      const double share = std::exp(logit - scores.log_mean_exp[i]) / count;
      weighted += share * (size / in.temperature + std::abs(scores.bias[j]));
    }
    if (count == 0) continue;
    out.log_mean_exp[i] = 1 + 2 * std::log(1.0 + count) + std::abs(scores.log_mean_exp[i]) + weighted;
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
void softmax_condition(const Inputs& in, const Result<double>& r, const Magnitudes& m, const RowColumns& columns,
                       int64_t i, StepCondition& out) {
  const int64_t d = in.d, count = in.column_count();
  out.log_sum_exp[i] = columns.log_sum_exp;
  for (int64_t j = 0; j < count; ++j) {
    if (!r.counting.mixed[i * count + j]) continue;
    const double size = columns.share[j] * (columns.sum + columns.average + columns.logit[j]);
    for (int64_t c = 0; c < d; ++c) out.mean[i * d + c] += size * m.negatives[j * d + c];
  }
}

}  // namespace

Condition condition_of(const Inputs& in, const Result<double>& r) {
  const Magnitudes m = magnitudes_of(in, r);
  Condition out;
  for (auto* rows : {&out.loss, &out.dtemperature_rows, &out.entropy, &out.normalizer}) rows->assign(in.n, 0);
  for (auto* matrix : {&out.dq, &out.dk, &out.steps.anchor, &out.steps.mean}) matrix->assign(in.n * in.d, 0);
  out.dx_c.assign(in.c * in.d, 0);
  out.steps.log_sum_exp.assign(in.n, 0);
  for (int64_t i = 0; i < in.n; ++i) {
    const RowColumns columns(in, r, m, i);
    row_condition(in, r, m, columns, i, out);
    anchor_condition(in, r, m, i, out.steps);
    softmax_condition(in, r, m, columns, i, out.steps);
    batch_condition(in, r, m, columns, i, out);
  }
  propagate_batch(in, r, out.dx_c);
  out.mixed = score_condition(in, r.mixed, {m.anchor_norm, m.negative_norm, m.q_mixed_norm, m.k_mixed_norm});
  out.unmixed = score_condition(in, r.unmixed, {m.anchor_norm, m.raw_norm, m.q_norm, m.k_norm});
  out.plain = score_condition(in, r.plain, {m.q_norm, m.raw_norm, m.q_norm, m.k_norm});
  add_roundings(in, r, m, out);
  return out;
}

}  // namespace oracle
