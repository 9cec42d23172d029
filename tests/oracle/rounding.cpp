// Bounds of roundings to 16 bits.
#include "oracle/rounding.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "oracle/engine.h"
#include "oracle/forward.h"
#include "oracle/operands.h"

namespace oracle {
namespace {

constexpr double kFloatError = 8.0 / (1 << 23);  // of a value before it is rounded, relative to its terms
const double kSplitProduct = std::ldexp(1.0, -23), kSplitQueue = std::ldexp(1.0, -39),
             kSplitAnchor = std::ldexp(1.0, -38);

// A unit of the type where the value may round to either neighbour, else 0; [rows,D] as `values`.
Rows undecided(const Rounding& rounding, const Rows& values, const Rows& magnitudes, int64_t d) {
  Rows units(values.size(), 0);
  if (!rounding.any()) return units;
  const Element element = rounding.element;
  for (size_t i = 0; i < values.size(); ++i) {
    const int exponent = exponent_of(rounding, &values[i - i % static_cast<size_t>(d)], d);
    const double margin = kFloatError * magnitudes[i];
    if (std::abs(values[i]) > rounding.most) continue;
    if (rounded(element, values[i] - margin, exponent) != rounded(element, values[i] + margin, exponent))
      units[i] = spacing(element, std::abs(values[i]) + margin, exponent);
  }
  return units;
}

// sum_c |x_c| |y_c| of a row of x and a row of y.
double absolute_product(const Rows& x, int64_t i, const Rows& y, int64_t j, int64_t d) {
  double sum = 0;
  for (int64_t c = 0; c < d; ++c) sum += std::abs(x[i * d + c] * y[j * d + c]);
  return sum;
}

std::vector<bool> nonzero_rows(const Rows& values, int64_t d) {
  std::vector<bool> out(values.size() / d);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = std::any_of(values.begin() + int64_t(i) * d, values.begin() + int64_t(i + 1) * d,
                         [](double x) { return x != 0; });
  return out;
}

// The two factors of a set of scores, and how far each element of them is undecided.
struct Factors {
  const Rows& anchor;   // [N,D] as multiplied
  const Rows& columns;  // [C,D] as multiplied
  Rows anchor_unit;     // [N,D]
  Rows columns_unit;    // [C,D], or empty
};

// The error of every score, [N,C].
Rows score_errors(const Inputs& in, const Factors& f) {
  const int64_t d = in.d, count = static_cast<int64_t>(f.columns.size()) / d;
  const std::vector<bool> rows = nonzero_rows(f.anchor_unit, d), columns = nonzero_rows(f.columns_unit, d);
  Rows errors(in.n * count, 0);
  for (int64_t i = 0; i < in.n; ++i)
    for (int64_t j = 0; j < count; ++j) {
      if (rows[i]) errors[i * count + j] += absolute_product(f.anchor_unit, i, f.columns, j, d);
      if (!columns.empty() && columns[j]) errors[i * count + j] += absolute_product(f.anchor, i, f.columns_unit, j, d);
    }
  return errors;
}

// Adds the error of a split of both factors in two to every score; `columns` and `magnitudes`: [C,D], a mixed column
// with the magnitudes of its terms.
void add_split_errors(const Inputs& in, const Rows& anchor, const Rows& magnitudes, Rows& errors) {
  if (in.products != Products::kFloat16Split) return;
  const int64_t d = in.d, count = static_cast<int64_t>(magnitudes.size()) / d;
  const double extent = weight_extent(in);
  Rows size(count, 0);
  for (int64_t j = 0; j < count * d; ++j) size[j / d] += std::abs(magnitudes[j]);
  for (int64_t i = 0; i < in.n; ++i) {
    double sum = 0, largest = 0;
    for (int64_t c = i * d; c < (i + 1) * d; ++c) {
      sum += std::abs(anchor[c]);
      largest = std::max(largest, std::abs(anchor[c]));
    }
    for (int64_t j = 0; j < count; ++j)
      errors[i * count + j] += kSplitProduct * absolute_product(anchor, i, magnitudes, j, d) +
                               kSplitAnchor * largest * size[j] + kSplitQueue * extent * sum;
  }
}

// The weights of the rows that the engine multiplies, and what their floor is relative to.
struct Weights {
  Rows values;
  double largest;
};

// The errors of sums by roundings of their weights; weight j multiplies `size(j, c)`, c < width.
template <class Size>
Rows weight_errors(const WeightError& error, const Weights& weights, int64_t width, Size&& size) {
  std::map<int64_t, Rows> groups;
  Rows lost(width, 0);
  const double floor = error.floor * weights.largest, below = error.below * weights.largest;
  for (size_t j = 0; j < weights.values.size(); ++j) {
    const double weight = std::abs(weights.values[j]);
    if (!(weight > 0) || !std::isfinite(weight)) continue;
    const auto group = static_cast<int64_t>(std::floor(error.groups * std::log(weight)));
    Rows& sum = groups.try_emplace(group, width, 0.0).first->second;
    const double flushed = weight < below ? std::min(weight, floor) : 0.0;
    for (int64_t c = 0; c < width; ++c) {
      const double x = std::abs(size(static_cast<int64_t>(j), c));
      sum[c] += weight * x;
      lost[c] += flushed * x;
    }
  }
  Rows out(width, 0);
  for (const auto& [key, sum] : groups)
    for (int64_t c = 0; c < width; ++c) out[c] += sum[c] * sum[c];
  for (int64_t c = 0; c < width; ++c) out[c] = error.relative * std::sqrt(out[c]) + lost[c];
  return out;
}

// The part of a weighted sum that ends of a split queue leave out.
double split_queue_error(const Inputs& in, const Rows& weights) {
  double sum = 0;
  for (const double weight : weights) sum += std::abs(weight);
  return in.products == Products::kFloat16Split ? kSplitQueue * sum : 0.0;
}

// `score_error`: [N,columns] of the loss's scores; `columns_unit` as in Factors.
void row_rounding(const Inputs& in, const Result<double>& r, const Magnitudes& m, const Rows& score_error,
                  const Rows& columns_unit, int64_t i, EngineRounding& out) {
  const int64_t d = in.d, count = in.column_count();
  const double tau = in.temperature;
  double average = 0;  // the error of LSE
  for (int64_t j = 0; j < count; ++j)
    if (r.counting.mixed[i * count + j])
      average += std::exp(r.logit[i * count + j] - r.log_sum_exp[i]) * score_error[i * count + j] / tau;
  const double loss = r.pushed[i] * average;
  const double w_error = in.form == Form::kDecoupled ? 0 : r.pushed[i] * std::exp(-r.row_loss[i]) * average;
  RowBounds bounds(d);
  double inner = 0;  // the error of a.o
  const Rows probability(r.probability.begin() + i * count, r.probability.begin() + (i + 1) * count);
  const double top = probability.empty() ? 0 : *std::max_element(probability.begin(), probability.end());
  const Weights weights{engine_weights(in, probability), weight_extent(in) * top};
  const WeightError error = weight_error(in);
  const Rows sums = weight_errors(error, weights, d, [&](int64_t j, int64_t c) { return r.engine_rows[j * d + c]; });
  inner += weight_errors(error, weights, 1, [&](int64_t j, int64_t) {
    // An error of the weight moves all features alike, one of what it multiplies each on its own.
    if (in.products == Products::kFloat16Split) return absolute_product(r.anchor, i, r.engine_rows, j, d);
    double product = 0;
    for (int64_t c = 0; c < d; ++c) product += r.anchor[i * d + c] * r.engine_rows[j * d + c];
    return product;
  })[0];
  const double split = split_queue_error(in, weights.values);
  for (int64_t c = 0; c < d; ++c) {
    bounds.anchor[c] = sums[c] + split;
    inner += split * std::abs(r.anchor[i * d + c]);
  }
  for (int64_t j = 0; j < count; ++j) {
    const double moved = probability[j] * (average + score_error[i * count + j] / tau);
    if (!r.counting.mixed[i * count + j] || (moved == 0 && columns_unit.empty())) continue;
    inner += moved * std::abs(r.mixed.score[i * count + j]);
    for (int64_t c = 0; c < d; ++c) {
      const double unit = columns_unit.empty() ? 0 : columns_unit[j * d + c];
      bounds.anchor[c] += moved * std::abs(r.negatives[j * d + c]) + probability[j] * unit;
      inner += probability[j] * unit * std::abs(r.anchor[i * d + c]);
    }
  }
  const double g_tau = (inner / tau + w_error * std::abs(r.mixed.pos[i]) / tau) / tau;
  for (int64_t c = 0; c < d; ++c) {
    bounds.anchor[c] /= tau;
    bounds.q_mixed[c] = w_error * m.k_mixed[i * d + c] / tau;
    bounds.k_mixed[c] = w_error * m.q_mixed[i * d + c] / tau;
  }
  propagate(in, r, m, i, std::move(bounds), out.dq, out.dk);
  out.loss[i] = (in.weight.empty() ? 1.0 : std::abs(in.weight[i])) * loss;
  out.dtemperature_rows[i] = std::abs(row_scale(in, i)) * g_tau;
  out.entropy[i] = loss + tau * g_tau;
  out.normalizer[i] = loss;
}

// The batch columns' gradients: errors of the weights, of the scores in them, of L, and of the anchors they multiply.
// `score_error`: [N,columns] of the loss's scores.
void batch_rounding_errors(const Inputs& in, const Result<double>& r, const Rows& score_error, const Rows& anchor_unit,
                           EngineRounding& out) {
  const int64_t d = in.d, count = in.column_count(), first = in.queue_columns();
  const WeightError error = weight_error(in);
  for (int64_t j = first; j < count; ++j) {
    Weights weights{Rows(in.n, 0), 0};
    for (int64_t i = 0; i < in.n; ++i) {
      if (!r.counting.mixed[i * count + j]) continue;
      const double weight = std::abs(row_scale(in, i) * upstream_of(in, i)) * r.probability[i * count + j];
      if (!std::isfinite(weight)) continue;
      weights.values[i] = weight;
      weights.largest = std::max(weights.largest, weight);
    }
    Rows sums = weight_errors(error, weights, d, [&](int64_t i, int64_t c) { return r.scoring[i * d + c]; });
    for (int64_t i = 0; i < in.n; ++i) {
      if (weights.values[i] == 0) continue;
      const double moved = out.normalizer[i] + score_error[i * count + j] / in.temperature;
      for (int64_t c = 0; c < d; ++c)
        sums[c] += weights.values[i] * (moved * std::abs(r.scoring[i * d + c]) + anchor_unit[i * d + c]);
    }
    for (int64_t c = 0; c < d; ++c) out.dx_c[(j - first) * d + c] = sums[c] / in.temperature;
  }
  propagate_batch(in, r, out.dx_c);
}

// `errors`: [N,columns], empty for none.
void score_rounding(const Inputs& in, const Scores<double>& scores, const Rows& errors, ScoreCondition& out) {
  for (auto* field : {&out.score_rounding, &out.mean_rounding, &out.log_mean_exp_rounding}) field->assign(in.n, 0);
  const int64_t count = scores.columns;
  if (errors.empty()) return;
  for (int64_t i = 0; i < in.n; ++i)
    for (int64_t j = 0; j < count; ++j) {
      if (!scores.counts[i * count + j]) continue;
      const double error = errors[i * count + j], share = 1 / double(scores.count[i]);
      const double logit = scores.score[i * count + j] / in.temperature + scores.bias[j];
      out.score_rounding[i] = std::max(out.score_rounding[i], error);
      out.mean_rounding[i] += error * share;
      out.log_mean_exp_rounding[i] += std::exp(logit - scores.log_mean_exp[i]) * share * error / in.temperature;
    }
}

// The positive of the ranks: the key rounded to the queue's type, the query as the products take it.
void rank_rounding(const Inputs& in, const Rows& q, const Rows& k, const Rows& q_size, const Rows& k_size,
                   ScoreCondition& out) {
  const Rounding as_pushed{in.queue_type, 0, false}, as_multiplied = rank_key_rounding(in);
  const Rows k_unit = undecided(as_multiplied.any() ? as_multiplied : as_pushed, k, k_size, in.d);
  const Rows q_unit = undecided(anchor_rounding(in), q, q_size, in.d);
  out.rank_rounding.assign(in.n, 0);
  for (int64_t i = 0; i < in.n; ++i)
    out.rank_rounding[i] = absolute_product(q, i, k_unit, i, in.d) + absolute_product(q_unit, i, k, i, in.d);
}

}  // namespace

void add_roundings(const Inputs& in, const Result<double>& r, const Magnitudes& m, Condition& out) {
  for (auto* rows :
       {&out.rounding.loss, &out.rounding.dtemperature_rows, &out.rounding.entropy, &out.rounding.normalizer})
    rows->assign(in.n, 0);
  out.rounding.dx_c.assign(in.c * in.d, 0);
  for (auto* matrix : {&out.rounding.dq, &out.rounding.dk}) matrix->assign(in.n * in.d, 0);
  rank_rounding(in, r.q_mixed, r.k_mixed, m.q_mixed, m.k_mixed, out.mixed);
  rank_rounding(in, r.q, r.k, m.q, m.k, out.unmixed);
  rank_rounding(in, r.q, r.k, m.q, m.k, out.plain);
  Rows mixed, unmixed, plain;
  if (rounds_operands(in)) {
    const Rounding rounding = anchor_rounding(in);
    const Rows anchor_unit = undecided(rounding, r.anchor, m.anchor, in.d);
    const Rows plain_anchor = rounded_rows(rounding, r.q, in.d);
    // Which neighbour a row took that was made is seen before it was rounded.
    const Rows batch_unit = undecided(batch_rounding(in), r.batch, m.batch, in.d);
    Rows columns_unit, raw_unit;
    if (in.mixes_negatives())
      columns_unit = undecided(mixed_row_rounding(in), unrounded_columns(in), m.negatives, in.d);
    else if (in.c > 0)
      columns_unit.assign(in.k * in.d, 0);
    for (int64_t j = 0; j < static_cast<int64_t>(columns_unit.size()) / in.d; ++j)
      if (j >= in.k || !in.mixes_as_row(j)) std::fill_n(columns_unit.begin() + j * in.d, in.d, 0.0);
    if (in.c > 0) {
      raw_unit.assign(in.k * in.d, 0);
      columns_unit.resize(in.queue_columns() * in.d);
      for (Rows* unit : {&columns_unit, &raw_unit}) unit->insert(unit->end(), batch_unit.begin(), batch_unit.end());
    }
    const Rows raw = raw_columns(in, in.queue);
    mixed = score_errors(in, {r.scoring, r.negatives, anchor_unit, columns_unit});
    unmixed = score_errors(in, {r.scoring, raw, anchor_unit, raw_unit});
    plain = score_errors(in, {plain_anchor, raw, undecided(rounding, r.q, m.q, in.d), raw_unit});
    add_split_errors(in, r.scoring, m.negatives, mixed);
    add_split_errors(in, r.scoring, raw, unmixed);
    add_split_errors(in, plain_anchor, raw, plain);
    for (int64_t i = 0; i < in.n; ++i) row_rounding(in, r, m, mixed, columns_unit, i, out.rounding);
    batch_rounding_errors(in, r, mixed, anchor_unit, out.rounding);
  }
  score_rounding(in, r.mixed, mixed, out.mixed);
  score_rounding(in, r.unmixed, unmixed, out.unmixed);
  score_rounding(in, r.plain, plain, out.plain);
}

}  // namespace oracle
