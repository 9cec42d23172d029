// merge against the oracle: splits of one launch, and partials of shards one after another.
#include <algorithm>

#include "cuda/shards.h"

namespace {

using namespace common_test;

support::Statistics statistics_of(const StatsView& from, int64_t n, const std::vector<double>& log_sum) {
  support::Statistics out;
  for (int64_t i = 0; i < n; ++i) {
    const double count = static_cast<double>(from.count[i]);
    out.neg_mean.push_back(from.mean[i]);
    out.neg_variance.push_back(static_cast<float>(static_cast<double>(from.m2[i]) / (count - 1)));
    out.neg_min.push_back(from.min[i]);
    out.neg_max.push_back(from.max[i]);
    out.neg_log_mean_exp.push_back(static_cast<float>(log_sum[static_cast<size_t>(i)] - std::log(count)));
    out.neg_count.push_back(from.count[i]);
    out.n_greater.push_back(from.n_greater[i]);
    out.n_greater_equal.push_back(from.n_greater_equal[i]);
  }
  return out;
}

// A merged partial against the oracle: m and l together, O relative to l, statistics. What is counted or chosen, and
// not rounded, is what the CPU's merge gives.
void check_partial(const fnce_problem& p, const support::Truth& truth, const PartialView& x, const PartialView& cpu) {
  std::vector<float> log_sum, mean;
  std::vector<double> exact_log_sum, unmixed_log_sum;
  for (int64_t i = 0; i < p.n; ++i) {
    exact_log_sum.push_back(static_cast<double>(x.m[i]) + std::log(static_cast<double>(x.l[i])));
    unmixed_log_sum.push_back(static_cast<double>(x.stats[1].m[i]) + std::log(static_cast<double>(x.stats[1].l[i])));
    log_sum.push_back(static_cast<float>(exact_log_sum.back()));
    for (int64_t c = i * p.d; c < (i + 1) * p.d; ++c) mean.push_back(x.o[c] / x.l[i]);
    for (int set = 0; set < 2; ++set) {
      const StatsView &s = x.stats[set], &t = cpu.stats[set];
      CHECK(s.count[i] == t.count[i]);
      CHECK(s.n_greater[i] == t.n_greater[i]);
      CHECK(s.n_greater_equal[i] == t.n_greater_equal[i]);
      CHECK(s.min[i] == t.min[i]);
      CHECK(s.max[i] == t.max[i]);
    }
  }
  support::Verdict verdict = support::compare_softmax(truth, log_sum, mean);
  verdict.merge(
      support::compare_negatives(truth, support::ScoreSet::kMixed, statistics_of(x.stats[0], p.n, exact_log_sum)));
  verdict.merge(
      support::compare_negatives(truth, support::ScoreSet::kUnmixed, statistics_of(x.stats[1], p.n, unmixed_log_sum)));
  FNCE_CHECK_VERDICT(verdict);
}

}  // namespace

TEST_CASE("common merge: splits and partials become the partial of the whole queue") {
  for (const int64_t d : {1, 70, 300})
    for (const int count : {1, 2, 7, 40, 150}) {
      Setup s = make_setup(5, 96, d, FNCE_LAMBDA_ROW, FNCE_SAMPLED, 61);
      s.inputs();
      INFO("D " << d << ", " << count << " splits");
      const support::Truth truth = truth_of(s);
      Shards shards(s, count);  // with 150, some are empty
      for (const bool base2 : {false, true}) {
        SplitArrays splits(shards, base2);
        Aligned memory(shards.merged.bytes);
        const PartialView out = shards.view(memory);
        launch(merge_kernel(), {5}, {splits.partials(shards, base2), out, 0}, nullptr);
        check_partial(s.p, truth, out, shards.view(shards.merged));
      }
      // One after another.
      Aligned sum(shards.merged.bytes);
      std::memcpy(sum.get(), shards.partials[0].get(), sum.bytes);
      for (size_t part = 1; part < shards.partials.size(); ++part)
        launch(merge_kernel(), {5}, {{shards.view(shards.partials[part]), 5, d, 1, 0, 1}, shards.view(sum), 1},
               nullptr);
      check_partial(s.p, truth, shards.view(sum), shards.view(shards.merged));
    }
}

TEST_CASE("common merge: no columns, NaN, and maxima below the start") {
  Setup s = make_setup(3, 64, 8, FNCE_LAMBDA_NONE, FNCE_SAMPLED, 62);
  s.inputs();
  Shards shards(s, 4);
  SplitArrays splits(shards, true);
  SplitPartials from = splits.partials(shards, true);
  for (int64_t i = 0; i < 12; ++i) {
    from.view.m[i] = kNoColumn;
    from.view.l[i] = 0;
    std::fill_n(from.view.o + 8 * i, 8, 0.0f);
  }
  Aligned memory(shards.merged.bytes);
  const PartialView out = shards.view(memory);
  launch(merge_kernel(), {3}, {from, out, 0}, nullptr);
  CHECK(out.m[1] == kMinusInfinity);
  CHECK(out.l[1] == 0.0f);
  CHECK(out.o[9] == 0.0f);
  // Row 1 has columns in the last split alone, whose scores all lay below the start; beside it are rows without any.
  from.view.m[3 * 3 + 1] = kMinusInfinity;
  launch(merge_kernel(), {3}, {from, out, 0}, nullptr);
  CHECK(std::isnan(out.m[1]));
  CHECK(out.m[0] == kMinusInfinity);
  CHECK(out.l[2] == 0.0f);
  CHECK(out.o[17] == 0.0f);
  // And in another split some that do not: those count alone.
  from.view.m[1] = 3.0f;
  from.view.l[1] = 2.0f;
  launch(merge_kernel(), {3}, {from, out, 0}, nullptr);
  CHECK(out.m[1] == static_cast<float>(3 * kLn2));
  CHECK(std::fabs(out.l[1] - 2.0f) < 1e-6f);
  CHECK(out.m[0] == kMinusInfinity);
  // One split of one row.
  for (int64_t i = 0; i < 12; ++i) from.view.m[i] = 1.0f, from.view.l[i] = 2.0f;
  from.view.m[4] = kNan;
  from.view.stats[0].mean[3 + 2] = kNan;
  launch(merge_kernel(), {3}, {from, out, 0}, nullptr);
  CHECK(std::isfinite(out.m[0]));
  CHECK(std::isnan(out.m[1]));
  CHECK(std::isnan(out.l[1]));
  CHECK(std::isnan(out.o[8]));
  CHECK(std::isfinite(out.l[2]));
  CHECK(std::isnan(out.stats[0].min[2]));
  CHECK(std::isnan(out.stats[0].max[2]));
  CHECK(std::isfinite(out.stats[0].min[1]));
}
