// Merged moments against two passes in long double, and the rule of ties.
#include "math/stats.h"

#include "math/philox.h"
#include "support/catch.h"

#include <cmath>
#include <vector>

using namespace fnce;

namespace {

std::vector<float> sample(uint64_t seed, std::size_t n, float mean) {
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i)
    x[i] =
        mean + static_cast<float>(static_cast<int32_t>(draw_block(seed, 0, Stream::kLambdaPos, i).word[1])) * 0x1p-31f;
  return x;
}

// Two passes over a part, as a tile does.
template <class T>
Moments<T> part(const std::vector<float>& x, std::size_t first, std::size_t last) {
  Moments<T> m;
  m.count = static_cast<int64_t>(last - first);
  for (std::size_t i = first; i < last; ++i) m.mean += static_cast<T>(x[i]) / static_cast<T>(m.count);
  for (std::size_t i = first; i < last; ++i) m.m2 += (static_cast<T>(x[i]) - m.mean) * (static_cast<T>(x[i]) - m.mean);
  return m;
}

template <class T>
Moments<T> merged(const std::vector<float>& x, std::size_t step) {
  Moments<T> m;
  for (std::size_t i = 0; i < x.size(); i += step) m = merge(m, part<T>(x, i, std::min(i + step, x.size())));
  return m;
}

}  // namespace

TEST_CASE("stats: merging parts of any size equals the whole") {
  for (float mean : {0.0f, 0.9f, 30.0f})
    for (std::size_t step : {1u, 7u, 64u, 999u, 1000u}) {
      const std::vector<float> x = sample(step, 1000, mean);
      const Moments<long double> exact = part<long double>(x, 0, x.size());
      const long double exact_variance = exact.m2 / 999;
      const Moments<double> m = merged<double>(x, step);
      INFO("mean " << mean << ", step " << step);
      CHECK(m.count == 1000);
      CHECK(std::fabs(m.mean - exact.mean) < 1e-13);
      CHECK(std::fabs(variance(m) - exact_variance) < 1e-12);
      // The variance keeps its digits although the mean is far from 0: no difference of squares.
      const Moments<float> f = merged<float>(x, step);
      CHECK(std::fabs(f.mean - exact.mean) < 1e-5 * (1 + mean));
      CHECK(std::fabs(variance(f) - exact_variance) < 2e-4 * exact_variance);
    }
}

TEST_CASE("stats: an empty side changes no bit") {
  const Moments<float> some{17, 0.3f, 1.25f};
  for (const Moments<float>& m : {merge(some, Moments<float>{}), merge(Moments<float>{}, some)}) {
    CHECK(m.count == 17);
    CHECK(m.mean == 0.3f);
    CHECK(m.m2 == 1.25f);
  }
  const Moments<float> none = merge(Moments<float>{}, Moments<float>{});
  CHECK(none.count == 0);
  CHECK(none.mean == 0.0f);
}

TEST_CASE("stats: variance is unbiased and NaN for fewer than two") {
  CHECK(std::isnan(variance(Moments<float>{0, 0.0f, 0.0f})));
  CHECK(std::isnan(variance(Moments<float>{1, 0.5f, 0.0f})));
  CHECK(variance(Moments<float>{2, 0.5f, 0.5f}) == 0.5f);
  CHECK(variance(Moments<double>{5, 0.5, 2.0}) == 0.5);
}

TEST_CASE("stats: a non-finite mean spreads to the merged mean and variance") {
  const Moments<float> bad = merge(Moments<float>{3, NAN, NAN}, Moments<float>{2, 0.5f, 0.5f});
  CHECK(std::isnan(bad.mean));
  CHECK(std::isnan(variance(bad)));
  const Moments<float> infinite = merge(Moments<float>{2, 0.5f, 0.5f}, Moments<float>{1, INFINITY, 0.0f});
  CHECK(!std::isfinite(infinite.mean));
  CHECK(!std::isfinite(variance(infinite)));
}

TEST_CASE("stats: ties within 8 units of 2^-23 of the larger of anchor norm and positive") {
  constexpr float kUnit = 0x1p-23f;
  CHECK(tie_tolerance(1.0f, 0.5f) == 8 * kUnit);
  CHECK(tie_tolerance(1.0f, -2.0f) == 16 * kUnit);
  CHECK(tie_tolerance(3.0f, 2.0f) == 24 * kUnit);
  const float pos = 0.5f, t = tie_tolerance(1.0f, pos);
  for (int units : {-9, -8, -1, 0, 1, 8, 9}) {
    const float neg = pos + static_cast<float>(units) * kUnit;
    INFO("units " << units);
    CHECK(is_greater(neg, pos, t) == (units > 8));
    CHECK(is_greater_or_tied(neg, pos, t) == (units >= -8));
  }
}

TEST_CASE("stats: a collapsed encoder's equal scores are ties, not hits") {
  const float pos = 0.99999994f, t = tie_tolerance(1.0f, pos);
  CHECK(is_greater_or_tied(0.9999999f, pos, t));
  CHECK(!is_greater(1.0000001f, pos, t));
}

TEST_CASE("stats: rows merge their counts, extremes and ranks, and an empty side changes no bit") {
  const RowStats<float> x = {17, 0.3f, 1.25f, -0.5f, 0.75f, 3, 4}, y = {5, 0.1f, 0.5f, -0.25f, 0.875f, 1, 1};
  const RowStats<float> both = merge(x, y);
  const Moments<float> moments = merge(moments_of(x), moments_of(y));
  CHECK(both.count == 22);
  CHECK(both.mean == moments.mean);
  CHECK(both.m2 == moments.m2);
  CHECK(both.min == -0.5f);
  CHECK(both.max == 0.875f);
  CHECK(both.n_greater == 4);
  CHECK(both.n_greater_equal == 5);
  for (const RowStats<float>& same : {merge(x, RowStats<float>()), merge(RowStats<float>(), x)}) {
    CHECK(same.count == 17);
    CHECK(same.mean == 0.3f);
    CHECK(same.m2 == 1.25f);
    CHECK(same.min == -0.5f);
    CHECK(same.max == 0.75f);
    CHECK(same.n_greater == 3);
    CHECK(same.n_greater_equal == 4);
  }
}

TEST_CASE("stats: a mean that is not finite takes the extremes along, which have lost the NaN") {
  RowStats<double> stats = {2, 0.5, 0.5, 0.25f, 0.75f, 1, 2};
  CHECK(rounded_stats(stats).min == 0.25f);
  CHECK(rounded_stats(stats).max == 0.75f);
  for (const double mean : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    stats.mean = mean;
    CHECK(std::isnan(rounded_stats(stats).min));
    CHECK(std::isnan(rounded_stats(stats).max));
    CHECK(rounded_stats(stats).n_greater_equal == 2);
  }
}
