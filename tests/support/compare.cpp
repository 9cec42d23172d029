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

Verdict compare_reduced(const Truth& t, const Outputs& actual) {
  if (t.inputs.reduction == oracle::Reduction::kNone)
    return compare_rows(
        {"loss", t.inputs.n, 1, &t.exact.loss, &t.naive.loss, &t.condition.loss, &t.condition.rounding.loss},
        actual.loss);
  const double rows = t.inputs.reduction == oracle::Reduction::kMean ? double(t.inputs.n) : 1.0;
  if (actual.loss.size() != 1) return failure("loss has the wrong size");
  return compare_number("loss", t.exact.loss[0], t.naive.loss[0], sum(t.condition.loss) / rows, actual.loss[0],
                        sum(t.condition.rounding.loss) / rows);
}

Expectation gradient_of(const Truth& t, bool of_query) {
  const int64_t n = t.inputs.n, d = t.inputs.d;
  const oracle::EngineRounding& engine = t.condition.rounding;
  const oracle::Element type = t.inputs.gradient_type;
  if (of_query) return {"dq", n, d, &t.exact.dq, &t.naive.dq, &t.condition.dq, &engine.dq, type};
  return {"dk", n, d, &t.exact.dk, &t.naive.dk, &t.condition.dk, &engine.dk, type};
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
  const double sum = 1 + std::log(1.0 + double(s.exact.columns));
  for (size_t i = 0; i < condition.size(); ++i) {
    const double size = s.condition.largest[i], variance = s.exact.variance[i];
    if (std::isfinite(variance))
      condition[i] = 2 * std::sqrt(variance) * size + sum * variance + 32 * kFloatEpsilon * size * size;
  }
  return condition;
}

Verdict compare_values(const Truth& t, const StatisticsTruth& s, const Statistics& actual) {
  const std::vector<double> variance = variance_condition(s), variance_error = variance_rounding(s);
  const std::vector<double> none(s.exact.pos.size(), 0.0), &score = s.condition.score_rounding;
  const struct {
    const char* field;
    const std::vector<double>& truth;
    const std::vector<float>& naive;
    const std::vector<double>&condition, &rounding;
    const std::vector<float>& actual;
  } fields[] = {{"pos", s.exact.pos, s.naive.pos, s.condition.pos, none, actual.pos},
                {"neg_mean", s.exact.mean, s.naive.mean, s.condition.mean, s.condition.mean_rounding, actual.neg_mean},
                {"neg_variance", s.exact.variance, s.naive.variance, variance, variance_error, actual.neg_variance},
                {"neg_min", s.exact.min, s.naive.min, s.condition.largest, score, actual.neg_min},
                {"neg_max", s.exact.max, s.naive.max, s.condition.largest, score, actual.neg_max},
                {"neg_log_mean_exp", s.exact.log_mean_exp, s.naive.log_mean_exp, s.condition.log_mean_exp,
                 s.condition.log_mean_exp_rounding, actual.neg_log_mean_exp}};
  Verdict verdict;
  for (const auto& f : fields) {
    const std::string name = std::string(s.name) + f.field;
    verdict.merge(compare_rows({name, t.inputs.n, 1, &f.truth, &f.naive, &f.condition, &f.rounding}, f.actual));
    if (f.actual.size() == f.truth.size()) verdict.merge(compare_conventions(name.c_str(), f.truth, f.actual));
  }
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
  choose_products(c, in);
  return in;
}

Truth::Truth(oracle::Inputs from)
    : inputs(std::move(from)),
      exact(oracle::evaluate<double>(inputs)),
      naive(oracle::evaluate<float>(inputs)),
      condition(oracle::condition_of(inputs, exact)) {}

Verdict compare_number(const char* name, double truth, float naive, double condition, float actual, double rounding) {
  const std::vector<double> truths{truth}, conditions{condition}, roundings{rounding};
  const std::vector<float> naives{naive};
  return compare_rows({name, 1, 1, &truths, &naives, &conditions, &roundings}, {actual});
}

Verdict compare_loss(const Truth& t, const Outputs& actual, const Want& want) {
  const oracle::EngineRounding& engine = t.condition.rounding;
  Verdict verdict;
  if (want.loss) verdict.merge(compare_reduced(t, actual));
  if (want.dq) verdict.merge(compare_rows(gradient_of(t, true), actual.dq));
  if (want.dk) verdict.merge(compare_rows(gradient_of(t, false), actual.dk));
  if (want.dtemperature_rows)
    verdict.merge(compare_rows({"dtemperature_rows", t.inputs.n, 1, &t.exact.dtemperature_rows,
                                &t.naive.dtemperature_rows, &t.condition.dtemperature_rows, &engine.dtemperature_rows},
                               actual.dtemperature_rows));
  if (want.dtemperature) {
    if (actual.dtemperature.size() != 1) return failure("dtemperature has the wrong size");
    verdict.merge(compare_number("dtemperature", t.exact.dtemperature, t.naive.dtemperature,
                                 sum(t.condition.dtemperature_rows), actual.dtemperature[0],
                                 sum(engine.dtemperature_rows)));
  }
  return verdict;
}

Verdict compare_statistics(const Truth& t, ScoreSet set, const Statistics& actual) {
  const StatisticsTruth s = select(t, set);
  const int64_t n = t.inputs.n, d = t.inputs.d;
  Verdict verdict = compare_values(t, s, actual);
  for (const int64_t count : actual.neg_count)
    if (count != s.exact.columns) verdict.merge(failure(std::string(s.name) + "neg_count is " + std::to_string(count)));
  verdict.merge(
      compare_count((std::string(s.name) + "n_greater").c_str(), s.exact, s.condition, false, actual.n_greater));
  verdict.merge(compare_count((std::string(s.name) + "n_greater_equal").c_str(), s.exact, s.condition, true,
                              actual.n_greater_equal));
  for (const auto* counts : {&actual.neg_count, &actual.n_greater, &actual.n_greater_equal})
    if (static_cast<int64_t>(counts->size()) != n)
      verdict.merge(failure(std::string(s.name) + "a count's size is wrong"));
  if (set != ScoreSet::kMixed) return verdict;
  verdict.merge(compare_rows(
      {"mixed.entropy", n, 1, &t.exact.entropy, &t.naive.entropy, &t.condition.entropy, &t.condition.rounding.entropy},
      actual.entropy));
  std::vector<double> condition(static_cast<size_t>(n)), rounding(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) condition[i] = norm(t.condition.dq, i * d, d);
  for (int64_t i = 0; i < n; ++i) rounding[i] = norm(t.condition.rounding.dq, i * d, d);
  verdict.merge(
      compare_rows({"mixed.dq_norm", n, 1, &t.exact.dq_norm, &t.naive.dq_norm, &condition, &rounding}, actual.dq_norm));
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
