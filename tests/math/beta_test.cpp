// The Beta sampler against its own closed form in double, and its distribution against an independent CDF and moments.
#include "math/beta.h"

#include "distributions.h"
#include "math/philox.h"
#include "support/catch.h"

using namespace fnce;

namespace {

constexpr double kAlphas[] = {0.05, 0.2, 0.5, 1.0, 1.6, 2.0, 5.0, 50.0};

float inverse(double alpha) { return div_rn(1.0f, static_cast<float>(alpha)); }

// U, x as the contract makes them of bits; the formula in double, with the same limit of 2^100.
double closed_form(double u, double x, double inv_alpha) {
  const double t = std::min(-std::log(u) * inv_alpha, 100.0 * std::log(2.0));
  const double s = std::sin(M_PI * x);
  const double y = std::expm1(t) * s * s;
  return 0.5 + std::copysign(0.5 * std::sqrt(y / (1.0 + y)), x);
}

double closed_form(uint32_t r0, uint32_t r1, double inv_alpha) {
  return closed_form(((r0 >> 9) * 2 + 1) * 0x1p-24, ((r1 >> 9) * 2 + 1) * 0x1p-24 - 0.5, inv_alpha);
}

struct CentralMoments {
  double n = 0, mean = 0, variance = 0;
  void add(double x) {
    n += 1;
    mean += x - 0.5;
    variance += (x - 0.5) * (x - 0.5);
  }
  // Standard normal if x ~ Beta(alpha, alpha): the mean is 1/2, the variance 1/(4(2a+1)), E(x-1/2)^4 =
  // 3/(16(2a+1)(2a+3)).
  double mean_z(double alpha) const { return mean / n / std::sqrt(true_variance(alpha) / n); }
  double variance_z(double alpha) const {
    const double fourth = 3.0 / (16.0 * (2 * alpha + 1) * (2 * alpha + 3));
    const double second = true_variance(alpha);
    return (variance / n - second) / std::sqrt((fourth - second * second) / n);
  }
  static double true_variance(double alpha) { return 1.0 / (4.0 * (2 * alpha + 1)); }
};

}  // namespace

TEST_CASE("beta: the reference CDF has its known values") {
  CHECK(std::fabs(symmetric_beta_cdf(1.0, 0.3) - 0.3) < 1e-14);
  CHECK(std::fabs(symmetric_beta_cdf(2.0, 0.2) - (3 * 0.04 - 2 * 0.008)) < 1e-14);
  CHECK(std::fabs(symmetric_beta_cdf(0.5, 0.1) - 2.0 / M_PI * std::asin(std::sqrt(0.1))) < 1e-14);
  CHECK(std::fabs(symmetric_beta_cdf(3.0, 0.9) - (10 * 0.729 - 15 * 0.6561 + 6 * 0.59049)) < 1e-14);
  CHECK(symmetric_beta_cdf(7.0, 0.5) == 0.5);
}

TEST_CASE("beta: within 1.5e-7 of the closed form in double, in [0, 1], never NaN") {
  for (double alpha : {0.05, 0.2, 0.5, 0.51, 1.0, 1.6, 2.0, 5.0, 50.0, 1000.0, 1e6}) {
    const float inv_alpha = inverse(alpha);
    double worst = 0;
    bool inside = true;
    for (uint64_t i = 0; i < 50000; ++i) {
      const Philox4 block = draw_block(17, 0, Stream::kLambdaPos, i);
      for (int half = 0; half < 4; half += 2) {
        const float x = beta_symmetric(block.word[half], block.word[half + 1], inv_alpha);
        inside = inside && x >= 0.0f && x <= 1.0f;
        worst = std::max(worst, std::fabs(x - closed_form(block.word[half], block.word[half + 1], inv_alpha)));
      }
    }
    INFO("alpha " << alpha);
    CHECK(inside);
    CHECK(worst <= 1.5e-7);
  }
}

TEST_CASE("beta: corners of the bits and of alpha stay in [0, 1]") {
  const uint32_t corners[] = {0u,      0x1FFu,  0x200u,  0x7FFFFFFFu, 0x80000000u,
                              0x7FFFu, 0x8000u, 0xFFFFu, 0xFFFF0000u, ~0u};
  // The smallest and largest float32: 1/alpha is infinite and subnormal there.
  for (float alpha : {1e-45f, 1.17549435e-38f, 1e-6f, 0.05f, 1.0f, 1e6f, 1e30f, 3.4028235e38f}) {
    const float inv_alpha = div_rn(1.0f, alpha);
    for (uint32_t r0 : corners) {
      const float y = beta_symmetric_16(r0, inv_alpha);
      CHECK((y >= 0.0f && y <= 1.0f));
      for (uint32_t r1 : corners) {
        const float x = beta_symmetric(r0, r1, inv_alpha);
        CHECK((x >= 0.0f && x <= 1.0f));
      }
    }
  }
}

TEST_CASE("beta: symmetric under the complement of the second word") {
  for (uint64_t i = 0; i < 1000; ++i) {
    const Philox4 block = draw_block(3, 0, Stream::kLambdaNeg, i);
    const float x = beta_symmetric(block.word[0], block.word[1], 0.5f);
    const float mirrored = beta_symmetric(block.word[0], ~block.word[1], 0.5f);
    // The two sides of 1/2 have different spacings.
    CHECK(std::fabs(double{x} + mirrored - 1.0) <= 0x1p-24);
  }
}

// False alarm of each check: 1e-6.
TEST_CASE("beta: mean and variance, two words and two halves of a word") {
  for (double alpha : kAlphas) {
    const float inv_alpha = inverse(alpha);
    CentralMoments two_words, two_halves;
    for (uint64_t i = 0; i < 200000; ++i) {
      const Philox4 block = draw_block(2021, 8, Stream::kLambdaPos, i);
      two_words.add(beta_symmetric(block.word[0], block.word[1], inv_alpha));
      two_halves.add(beta_symmetric_16(block.word[2], inv_alpha));
    }
    INFO("alpha " << alpha);
    CHECK(std::fabs(two_words.mean_z(alpha)) < kNormalThreshold);
    CHECK(std::fabs(two_words.variance_z(alpha)) < kNormalThreshold);
    CHECK(std::fabs(two_halves.mean_z(alpha)) < kNormalThreshold);
    CHECK(std::fabs(two_halves.variance_z(alpha)) < kNormalThreshold);
  }
}

// Below alpha 1/2 much of the mass lies closer to 0 and 1 than float32 resolves near 1, and rounds onto them. Inside
// the interval the conditional distribution is tested, and how much lies inside. False alarm of each check: 1e-6.
TEST_CASE("beta: distribution on the unsaturated part") {
  constexpr double kLow = 1.0 / 1024, kHigh = 1.0 - kLow;
  constexpr int64_t kDraws = 200000;
  for (double alpha : kAlphas) {
    const float inv_alpha = inverse(alpha);
    std::vector<double> inside;
    for (int64_t i = 0; i < kDraws; ++i) {
      const Philox4 block = draw_block(77, 0, Stream::kLambdaNeg, static_cast<uint64_t>(i));
      const float x = beta_symmetric(block.word[0], block.word[1], inv_alpha);
      if (x >= kLow && x <= kHigh) inside.push_back(x);
    }
    INFO("alpha " << alpha);
    const double low = symmetric_beta_cdf(alpha, kLow), share = 1.0 - 2.0 * low;
    const double expected = share * kDraws;
    const double spread = std::sqrt(expected * (1.0 - share));
    CHECK(std::fabs(static_cast<double>(inside.size()) - expected) <= kNormalThreshold * spread + 1e-6);
    const auto cdf = [&](double x) { return (symmetric_beta_cdf(alpha, x) - low) / share; };
    CHECK(ks_distance(inside, cdf) < ks_threshold(inside.size()));
  }
}

// The 16-bit form has cells of 2^-16: the distance of a cell's middle to the true CDF adds at most that.
TEST_CASE("beta: distribution of the 16-bit form") {
  for (double alpha : {0.5, 1.0, 1.6, 2.0, 5.0}) {
    const float inv_alpha = inverse(alpha);
    std::vector<double> sample;
    for (uint64_t i = 0; i < 50000; ++i) {
      const Philox4 block = draw_block(78, 0, Stream::kLambdaNeg, i);
      for (uint32_t word : block.word) sample.push_back(beta_symmetric_16(word, inv_alpha));
    }
    INFO("alpha " << alpha);
    const auto cdf = [&](double x) { return symmetric_beta_cdf(alpha, x); };
    CHECK(ks_distance(sample, cdf) < ks_threshold(sample.size()) + 0x1p-16);
  }
}
