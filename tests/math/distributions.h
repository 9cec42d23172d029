// Thresholds and reference distributions of the statistical tests, in double and independent of src/. All tests draw
// from fixed seeds; each threshold is stated as the chance that a correct sampler misses it, for a random seed: 1e-6 or
// less.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

// |z| of a standard normal exceeds this with chance 1e-6.
inline constexpr double kNormalThreshold = 4.892;

// Kolmogorov-Smirnov: the chance of D > sqrt(log(2 / 1e-6) / (2 n)) is below 1e-6 (Dvoretzky-Kiefer-Wolfowitz,
// Massart).
inline double ks_threshold(std::size_t n) { return std::sqrt(std::log(2e6) / (2.0 * static_cast<double>(n))); }

template <class Cdf>
double ks_distance(std::vector<double> sample, Cdf cdf) {
  std::sort(sample.begin(), sample.end());
  const double n = static_cast<double>(sample.size());
  double distance = 0;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    const double expected = cdf(sample[i]);
    distance = std::max({distance, expected - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - expected});
  }
  return distance;
}

// Pearson's statistic of counts that should be equal, as a standard normal (Wilson and Hilferty's cube root).
inline double chi_squared_z(const std::vector<int64_t>& counts) {
  double total = 0;
  for (int64_t count : counts) total += static_cast<double>(count);
  const double expected = total / static_cast<double>(counts.size());
  double chi = 0;
  for (int64_t count : counts) {
    const double off = static_cast<double>(count) - expected;
    chi += off * off / expected;
  }
  const double freedom = static_cast<double>(counts.size() - 1);
  const double spread = 2.0 / (9.0 * freedom);
  return (std::cbrt(chi / freedom) - (1.0 - spread)) / std::sqrt(spread);
}

// Regularised incomplete beta I_x(a, a) for 0 <= x <= 1: DLMF 8.17.22's continued fraction, evaluated by Lentz's method
// on the side where it converges fast.
inline double symmetric_beta_cdf(double a, double x) {
  if (x > 0.5) return 1.0 - symmetric_beta_cdf(a, 1.0 - x);
  if (x <= 0.0) return 0.0;
  if (x == 0.5) return 0.5;
  constexpr double kTiny = 1e-300;
  double c = 1.0;
  double d = 1.0 - 2.0 * a * x / (a + 1.0);
  d = 1.0 / (std::fabs(d) < kTiny ? kTiny : d);
  double fraction = d;
  for (int m = 1; m < 10000; ++m) {
    double change = 1.0;
    for (int odd = 0; odd < 2; ++odd) {
      const double numerator = odd == 0 ? m * (a - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
                                        : -(a + m) * (2 * a + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1.0 + numerator * d;
      d = 1.0 / (std::fabs(d) < kTiny ? kTiny : d);
      c = 1.0 + numerator / c;
      if (std::fabs(c) < kTiny) c = kTiny;
      change = c * d;
      fraction *= change;
    }
    if (std::fabs(change - 1.0) < 1e-15) break;
  }
  const double front = std::lgamma(2 * a) - 2 * std::lgamma(a) + a * (std::log(x) + std::log1p(-x)) - std::log(a);
  return std::exp(front) * fraction;
}
