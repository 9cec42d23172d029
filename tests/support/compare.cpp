// Comparison of a case's outputs with the oracle.
#include "support/compare.h"

#include <cmath>
#include <numeric>
#include <sstream>
#include <utility>

#include "support/products.h"

namespace support {
namespace {

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

Verdict failure(const std::string& why) {
  Verdict verdict;
  verdict.ok = false;
  verdict.why = why;
  return verdict;
}

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

double norm(const std::vector<double>& values, int64_t first, int64_t count) {
  double squares = 0;
  for (int64_t c = first; c < first + count; ++c) squares += values[c] * values[c];
  return std::sqrt(squares);
}

Expectation gradient_of(const Truth& t, bool of_query) {
  const int64_t n = t.inputs.n, d = t.inputs.d;
  const oracle::EngineRounding& engine = t.condition.rounding;
  const oracle::Element type = t.inputs.gradient_type;
  if (of_query) return {"dq", n, d, &t.exact.dq, &t.naive.dq, &t.condition.dq, &engine.dq, type};
  return {"dk", n, d, &t.exact.dk, &t.naive.dk, &t.condition.dk, &engine.dk, type};
}

// Loss, gradients, gradients of the temperature and log-sum-exps that `want` names; `judge` is called with what is
// expected and a member of Outputs.
template <class Judge>
void for_each_output(const Truth& t, const Want& want, Judge judge) {
  const int64_t n = t.inputs.n;
  const oracle::EngineRounding& engine = t.condition.rounding;
  const double rows = t.inputs.reduction == oracle::Reduction::kMean ? double(n) : 1.0;
  const std::vector<double> loss{sum(t.condition.loss) / rows}, loss_engine{sum(engine.loss) / rows};
  if (want.loss && t.inputs.reduction == oracle::Reduction::kNone)
    judge(Expectation{"loss", n, 1, &t.exact.loss, &t.naive.loss, &t.condition.loss, &engine.loss}, &Outputs::loss);
  else if (want.loss)
    judge(Expectation{"loss", 1, 1, &t.exact.loss, &t.naive.loss, &loss, &loss_engine}, &Outputs::loss);
  if (want.dq) judge(gradient_of(t, true), &Outputs::dq);
  if (want.dk) judge(gradient_of(t, false), &Outputs::dk);
  if (want.dtemperature_rows)
    judge(Expectation{"dtemperature_rows", n, 1, &t.exact.dtemperature_rows, &t.naive.dtemperature_rows,
                      &t.condition.dtemperature_rows, &engine.dtemperature_rows},
          &Outputs::dtemperature_rows);
  if (want.log_sum_exp)
    judge(Expectation{"log_sum_exp", n, 1, &t.exact.normalizer, &t.naive.normalizer, &t.condition.normalizer,
                      &engine.normalizer},
          &Outputs::log_sum_exp);
  if (want.dx_c && t.inputs.c > 0)
    judge(Expectation{"dx_c", t.inputs.c, t.inputs.d, &t.exact.dx_c, &t.naive.dx_c, &t.condition.dx_c, &engine.dx_c,
                      t.inputs.gradient_type},
          &Outputs::dx_c);
  if (!want.dtemperature) return;
  const std::vector<double> truth{t.exact.dtemperature}, condition{sum(t.condition.dtemperature_rows)};
  const std::vector<double> rounding{sum(engine.dtemperature_rows)};
  const std::vector<float> naive{t.naive.dtemperature};
  judge(Expectation{"dtemperature", 1, 1, &truth, &naive, &condition, &rounding}, &Outputs::dtemperature);
}

// Statistics whose truth is not finite have an exact convention: the same infinity, or NaN for NaN.
Verdict compare_conventions(const char* name, const std::vector<double>& truth, const std::vector<float>& actual) {
  for (size_t i = 0; i < truth.size(); ++i) {
    if (std::isfinite(truth[i])) continue;
    const bool same = std::isnan(truth[i]) ? static_cast<bool>(std::isnan(actual[i])) : double(actual[i]) == truth[i];
    if (same) continue;
    std::ostringstream text;
    text << name << ", row " << i << " is " << actual[i] << ", by convention " << truth[i];
    return failure(text.str());
  }
  return {};
}

// A count lies between those of a threshold raised and lowered by the rounding of the scores.
Verdict compare_count(const char* name, const oracle::Scores<double>& scores, const oracle::ScoreCondition& condition,
                      bool ties, const std::vector<int64_t>& actual) {
  for (size_t i = 0; i < actual.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const double margin = score_margin(condition, row);
    const auto count = ties ? oracle::count_greater_equal<double> : oracle::count_greater<double>;
    const int64_t low = count(scores, row, margin), high = count(scores, row, -margin);
    if (actual[i] >= low && actual[i] <= high) continue;
    std::ostringstream text;
    text << name << ", row " << i << " is " << actual[i] << ", truth " << low << " .. " << high;
    return failure(text.str());
  }
  return {};
}

struct StatisticsTruth {
  const char* name;
  const oracle::Scores<double>& exact;
  const oracle::Scores<float>& naive;
  const oracle::ScoreCondition& condition;
};

StatisticsTruth select(const Truth& t, ScoreSet set) {
  switch (set) {
    case ScoreSet::kMixed: return {"mixed.", t.exact.mixed, t.naive.mixed, t.condition.mixed};
    case ScoreSet::kUnmixed: return {"unmixed.", t.exact.unmixed, t.naive.unmixed, t.condition.unmixed};
    case ScoreSet::kPlain: break;
  }
  return {"scores.", t.exact.plain, t.naive.plain, t.condition.plain};
}

// What the engine's error of a single score moves.
std::vector<double> variance_rounding(const StatisticsTruth& s) {
  std::vector<double> rounding(s.exact.variance.size(), 0.0);
  for (size_t i = 0; i < rounding.size(); ++i) {
    const double size = s.condition.score_rounding[i], variance = s.exact.variance[i];
    if (std::isfinite(variance)) rounding[i] = (2 * std::sqrt(variance) + size) * size;
  }
  return rounding;
}

// A deviation moves the variance by twice its error times its size; their squares are a sum of C terms, as in the loss.
// Where all scores are equal, what is left is the square of the error of scores and of their average: eight units for
// float32 sums over a tile of keys.
std::vector<double> variance_condition(const StatisticsTruth& s) {
  std::vector<double> condition(s.exact.variance.size(), 0.0);
  for (size_t i = 0; i < condition.size(); ++i) {
    const double sum = 1 + std::log(1.0 + double(s.exact.count[i]));
    const double size = s.condition.largest[i], variance = s.exact.variance[i];
    if (std::isfinite(variance))
      condition[i] = 2 * std::sqrt(variance) * size + sum * variance + 32 * kFloatEpsilon * size * size;
  }
  return condition;
}

// All fields that are not integers, entropy and dq_norm apart; `judge` is called with what is expected and a member of
// Statistics.
template <class Judge>
void for_each_value(const Truth& t, const StatisticsTruth& s, Judge judge) {
  const std::vector<double> variance = variance_condition(s), variance_error = variance_rounding(s);
  const std::vector<double> none(s.exact.pos.size(), 0.0), &score = s.condition.score_rounding;
  const struct {
    const char* field;
    std::vector<float> Statistics::*member;
    const std::vector<double>& truth;
    const std::vector<float>& naive;
    const std::vector<double>&condition, &rounding;
  } fields[] = {
      {"pos", &Statistics::pos, s.exact.pos, s.naive.pos, s.condition.pos, none},
      {"neg_mean", &Statistics::neg_mean, s.exact.mean, s.naive.mean, s.condition.mean, s.condition.mean_rounding},
      {"neg_variance", &Statistics::neg_variance, s.exact.variance, s.naive.variance, variance, variance_error},
      {"neg_min", &Statistics::neg_min, s.exact.min, s.naive.min, s.condition.largest, score},
      {"neg_max", &Statistics::neg_max, s.exact.max, s.naive.max, s.condition.largest, score},
      {"neg_log_mean_exp", &Statistics::neg_log_mean_exp, s.exact.log_mean_exp, s.naive.log_mean_exp,
       s.condition.log_mean_exp, s.condition.log_mean_exp_rounding}};
  for (const auto& f : fields)
    judge(Expectation{std::string(s.name) + f.field, t.inputs.n, 1, &f.truth, &f.naive, &f.condition, &f.rounding},
          f.member);
}

// The last two of the loss's statistics.
template <class Judge>
void for_each_value_of_loss(const Truth& t, Judge judge) {
  const int64_t n = t.inputs.n, d = t.inputs.d;
  if (!t.inputs.has_bias())
    judge(Expectation{"mixed.entropy", n, 1, &t.exact.entropy, &t.naive.entropy, &t.condition.entropy,
                      &t.condition.rounding.entropy},
          &Statistics::entropy);
  std::vector<double> condition(static_cast<size_t>(n)), rounding(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) condition[i] = norm(t.condition.dq, i * d, d);
  for (int64_t i = 0; i < n; ++i) rounding[i] = norm(t.condition.rounding.dq, i * d, d);
  judge(Expectation{"mixed.dq_norm", n, 1, &t.exact.dq_norm, &t.naive.dq_norm, &condition, &rounding},
        &Statistics::dq_norm);
}

Verdict compare_values(const Truth& t, const StatisticsTruth& s, const Statistics& actual, bool with_pos) {
  Verdict verdict;
  for_each_value(t, s, [&](const Expectation& expected, std::vector<float> Statistics::*member) {
    if (member == &Statistics::pos && !with_pos) return;
    const std::vector<float>& values = actual.*member;
    verdict.merge(compare_rows(expected, values));
    if (values.size() == expected.truth->size())
      verdict.merge(compare_conventions(expected.name.c_str(), *expected.truth, values));
  });
  return verdict;
}

Verdict compare_counts(const Truth& t, const StatisticsTruth& s, const Statistics& actual) {
  Verdict verdict;
  for (size_t i = 0; i < actual.neg_count.size(); ++i)
    if (actual.neg_count[i] != s.exact.count[i])
      verdict.merge(failure(std::string(s.name) + "neg_count, row " + std::to_string(i) + " is " +
                            std::to_string(actual.neg_count[i]) + ", truth " + std::to_string(s.exact.count[i])));
  verdict.merge(
      compare_count((std::string(s.name) + "n_greater").c_str(), s.exact, s.condition, false, actual.n_greater));
  verdict.merge(compare_count((std::string(s.name) + "n_greater_equal").c_str(), s.exact, s.condition, true,
                              actual.n_greater_equal));
  for (const auto* counts : {&actual.neg_count, &actual.n_greater, &actual.n_greater_equal})
    if (static_cast<int64_t>(counts->size()) != t.inputs.n)
      verdict.merge(failure(std::string(s.name) + "a count's size is wrong"));
  return verdict;
}

oracle::Granularity granularity(int32_t value) { return static_cast<oracle::Granularity>(value); }

}  // namespace

oracle::Inputs oracle_inputs(const Case& c) {
  const fnce_problem& p = c.problem;
  oracle::Inputs in;
  in.n = p.n;
  in.k = p.k;
  in.d = p.d;
  in.x_q = doubles(oracle::rounded(element_of(p.feature_type), c.arrays.x_q));
  in.x_k = doubles(oracle::rounded(element_of(p.feature_type), c.arrays.x_k));
  in.queue = doubles(oracle::rounded(element_of(p.queue_type), c.arrays.queue));
  in.weight = doubles(c.arrays.weight);
  in.lambda_pos = doubles(lambda_pos_of(c));
  in.lambda_neg = doubles(lambda_neg_of(c));
  in.permutation = permutation_of(c);
  in.temperature = double(c.numbers.temperature);
  in.epsilon = double(c.numbers.epsilon);
  in.normalize = p.normalize != 0;
  in.granularity_pos = granularity(p.lambda_pos);
  in.granularity_neg = granularity(p.lambda_neg);
  in.renormalize_pos = p.renormalize_pos != 0;
  in.renormalize_neg = p.renormalize_neg != 0;
  in.columns = static_cast<oracle::Columns>(p.columns);
  in.anchor = static_cast<oracle::Anchor>(p.anchor);
  in.reduction = static_cast<oracle::Reduction>(p.reduction);
  in.queue_type = element_of(p.queue_type);
  in.gradient_type = element_of(p.gradient_type);
  in.c = p.batch_columns;
  in.x_c = doubles(oracle::rounded(element_of(p.feature_type), c.arrays.x_c));
  in.query_ids = c.arrays.query_ids;
  in.column_ids = c.arrays.column_ids;
  in.batch_ids = c.arrays.batch_ids;
  in.with_bias = c.problem.column_bias != 0;
  in.column_bias = doubles(c.arrays.column_bias);
  in.batch_bias = doubles(c.arrays.batch_bias);
  in.has_margin = p.margin_mask != 0;
  in.margin = double(c.numbers.margin);
  in.form = static_cast<oracle::Form>(p.form);
  in.upstream = doubles(c.arrays.upstream);
  choose_products(c, in);
  return in;
}

Truth::Truth(oracle::Inputs from)
    : inputs(std::move(from)),
      exact(oracle::evaluate<double>(inputs)),
      naive(oracle::evaluate<float>(inputs)),
      condition(oracle::condition_of(inputs, exact)) {}

Verdict compare_loss(const Truth& t, const Outputs& actual, const Want& want) {
  Verdict verdict;
  for_each_output(t, want, [&](const Expectation& expected, std::vector<float> Outputs::*member) {
    verdict.merge(compare_rows(expected, actual.*member));
  });
  return verdict;
}

Verdict compare_statistics(const Truth& t, ScoreSet set, const Statistics& actual) {
  const StatisticsTruth s = select(t, set);
  Verdict verdict = compare_values(t, s, actual, true);
  verdict.merge(compare_counts(t, s, actual));
  if (set != ScoreSet::kMixed) return verdict;
  for_each_value_of_loss(t, [&](const Expectation& expected, std::vector<float> Statistics::*member) {
    verdict.merge(compare_rows(expected, actual.*member));
  });
  return verdict;
}

Verdict compare_negatives(const Truth& t, ScoreSet set, const Statistics& actual) {
  const StatisticsTruth s = select(t, set);
  Verdict verdict = compare_values(t, s, actual, false);
  verdict.merge(compare_counts(t, s, actual));
  return verdict;
}

Verdict compare_pair(const Case& c, const Truth& sizes, const Outputs& actual, const Outputs& other) {
  Verdict verdict;
  for_each_output(sizes, c.want, [&](const Expectation& expected, std::vector<float> Outputs::*member) {
    verdict.merge(compare_pair(expected, actual.*member, other.*member));
  });
  const auto compare_set = [&](ScoreSet set, const Statistics& a, const Statistics& b) {
    const auto judge = [&](const Expectation& expected, std::vector<float> Statistics::*member) {
      verdict.merge(compare_pair(expected, a.*member, b.*member));
    };
    for_each_value(sizes, select(sizes, set), judge);
    if (set == ScoreSet::kMixed) for_each_value_of_loss(sizes, judge);
    if (a.neg_count != b.neg_count || a.n_greater != b.n_greater || a.n_greater_equal != b.n_greater_equal)
      verdict.merge(failure("counts differ"));
  };
  if (c.problem.scores & FNCE_SCORES_MIXED) compare_set(ScoreSet::kMixed, actual.mixed, other.mixed);
  if (c.problem.scores & FNCE_SCORES_UNMIXED) compare_set(ScoreSet::kUnmixed, actual.unmixed, other.unmixed);
  return verdict;
}

Verdict compare_anchors(const Truth& t, const std::vector<float>& actual) {
  return compare_rows(
      {"anchor", t.inputs.n, t.inputs.d, &t.exact.anchor, &t.naive.anchor, &t.condition.steps.anchor, nullptr}, actual);
}

Verdict compare_positives(const Truth& t, ScoreSet set, const std::vector<float>& actual) {
  const StatisticsTruth s = select(t, set);
  return compare_rows(
      {std::string(s.name) + "pos", t.inputs.n, 1, &s.exact.pos, &s.naive.pos, &s.condition.pos, nullptr}, actual);
}

Verdict compare_softmax(const Truth& t, const std::vector<float>& log_sum_exp, const std::vector<float>& mean) {
  const int64_t n = t.inputs.n, d = t.inputs.d;
  std::vector<double> exact_mean(t.exact.partial_o);
  std::vector<float> naive_mean(t.naive.partial_o);
  for (int64_t c = 0; c < n * d; ++c) {
    exact_mean[c] /= t.exact.partial_l[c / d];
    naive_mean[c] /= t.naive.partial_l[c / d];
  }
  Verdict verdict = compare_rows(
      {"log-sum-exp", n, 1, &t.exact.log_sum_exp, &t.naive.log_sum_exp, &t.condition.steps.log_sum_exp, nullptr},
      log_sum_exp);
  verdict.merge(compare_rows({"O / l", n, d, &exact_mean, &naive_mean, &t.condition.steps.mean, nullptr}, mean));
  return verdict;
}

Verdict compare_all(const Case& c, const Truth& truth, const Outputs& actual) {
  Verdict verdict = compare_loss(truth, actual, c.want);
  if (c.problem.scores & FNCE_SCORES_MIXED) verdict.merge(compare_statistics(truth, ScoreSet::kMixed, actual.mixed));
  if (c.problem.scores & FNCE_SCORES_UNMIXED)
    verdict.merge(compare_statistics(truth, ScoreSet::kUnmixed, actual.unmixed));
  return verdict;
}

bool gradient_has_signal(const Truth& t) { return has_signal(gradient_of(t, true)); }

Verdict check_case(const Case& c) {
  const Outputs actual = run_loss(c);
  return compare_all(c, Truth(oracle_inputs(c)), actual);
}

}  // namespace support
