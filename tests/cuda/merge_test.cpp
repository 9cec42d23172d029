// merge against the CPU backend: splits of one launch, and partials of shards one after another.
#include <algorithm>

#include "cuda/shards.h"

namespace {

using namespace common_test;

std::vector<float> floats_of(const float* from, int64_t count) { return std::vector<float>(from, from + count); }

// Two partials say the same: m and l together, O relative to l, statistics.
void check_partials(const fnce_problem& p, const PartialView& x, const PartialView& y) {
  const auto lse = [](float m, float l) {
    return log_sum_exp(LogSum<double>{static_cast<double>(m), static_cast<double>(l)});
  };
  for (int64_t i = 0; i < p.n; ++i) {
    const double expected = lse(y.m[i], y.l[i]);
    CHECK(close(lse(x.m[i], x.l[i]), expected, std::max(1.0, std::abs(expected)), 2e-7));
    CHECK(close(lse(x.unmixed_m[i], x.unmixed_l[i]), lse(y.unmixed_m[i], y.unmixed_l[i]), 1.0, 1e-5));
    std::vector<float> a = floats_of(x.o + i * p.d, p.d), b = floats_of(y.o + i * p.d, p.d);
    const double factor = std::exp(static_cast<double>(x.m[i]) - static_cast<double>(y.m[i]));
    for (float& value : a) value = static_cast<float>(static_cast<double>(value) * factor);
    CHECK(compare_rows(a, b, p.d, 4e-6) == "");
    for (int set = 0; set < 2; ++set) {
      const StatsView &s = x.stats[set], &t = y.stats[set];
      CHECK(s.count[i] == t.count[i]);
      CHECK(s.n_greater[i] == t.n_greater[i]);
      CHECK(s.n_greater_equal[i] == t.n_greater_equal[i]);
      CHECK(close(s.mean[i], t.mean[i], 1.0, 1e-6));
      CHECK(close(s.m2[i], t.m2[i], std::abs(static_cast<double>(t.m2[i])), 1e-5));
      CHECK((s.min[i] == t.min[i] || (std::isnan(s.min[i]) && std::isnan(t.min[i]))));
      CHECK((s.max[i] == t.max[i] || (std::isnan(s.max[i]) && std::isnan(t.max[i]))));
    }
  }
}

}  // namespace

TEST_CASE("common merge: splits and partials become what the CPU makes of them") {
  for (const int64_t d : {1, 70, 300})
    for (const int count : {1, 2, 7, 40, 150}) {
      Setup s = make_setup(5, 96, d, FNCE_LAMBDA_ROW, FNCE_SAMPLED, 61);
      s.inputs();
      INFO("D " << d << ", " << count << " splits");
      Shards shards(s, count);  // with 150, some are empty
      for (const bool base2 : {false, true}) {
        SplitArrays splits(shards, base2);
        Aligned memory(shards.merged.bytes);
        const PartialView out = shards.view(memory);
        launch(merge_kernel(), {5}, {splits.splits(shards, base2), out, 0}, nullptr);
        check_partials(s.p, out, shards.view(shards.merged));
      }
      // One after another.
      Aligned sum(shards.merged.bytes);
      std::memcpy(sum.get(), shards.partials[0].get(), sum.bytes);
      for (size_t part = 1; part < shards.partials.size(); ++part)
        launch(merge_kernel(), {5}, {{shards.view(shards.partials[part]), 5, d, 1, 0, 1, 1}, shards.view(sum), 1},
               nullptr);
      check_partials(s.p, shards.view(sum), shards.view(shards.merged));
    }
}

TEST_CASE("common merge: no columns, NaN, and maxima below the start") {
  Setup s = make_setup(3, 64, 8, FNCE_LAMBDA_NONE, FNCE_SAMPLED, 62);
  s.inputs();
  Shards shards(s, 4);
  SplitArrays splits(shards, true);
  Splits from = splits.splits(shards, true);
  for (int64_t i = 0; i < 12; ++i) {
    from.view.m[i] = kMinusInfinity;
    from.view.l[i] = 0;
    std::fill_n(from.view.o + 8 * i, 8, 0.0f);
  }
  Aligned memory(shards.merged.bytes);
  const PartialView out = shards.view(memory);
  from.has_columns = 0;
  launch(merge_kernel(), {3}, {from, out, 0}, nullptr);
  CHECK(out.m[1] == kMinusInfinity);
  CHECK(out.l[1] == 0.0f);
  CHECK(out.o[9] == 0.0f);
  from.has_columns = 1;
  launch(merge_kernel(), {3}, {from, out, 0}, nullptr);
  CHECK(std::isnan(out.m[1]));
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
