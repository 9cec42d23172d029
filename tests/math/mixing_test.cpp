// Mixing and its transpose against double, and the identities they are chosen for.
#include "math/mixing.h"

#include "math/philox.h"
#include "support/catch.h"

#include <cmath>

using namespace fnce;

namespace {

// Reproducible numbers in [-1, 1).
float value(uint64_t index, int word) {
  const int32_t bits = static_cast<int32_t>(draw_block(1, 0, Stream::kLambdaPos, index).word[word]);
  return static_cast<float>(bits) * 0x1p-31f;
}

}  // namespace

TEST_CASE("mixing: against double") {
  for (uint64_t i = 0; i < 10000; ++i) {
    const float lambda = 2.0f * value(i, 0), x = value(i, 1), y = value(i, 2);
    const double exact = double{lambda} * x + (1.0 - double{lambda}) * y;
    // 1 - lambda, its product and the sum are rounded once each.
    const double bound = 0x1p-24 * (2.0 * std::fabs((1.0 - double{lambda}) * y) + std::fabs(exact) + 1e-6);
    CHECK(std::fabs(mix(lambda, x, y) - exact) <= bound);
    CHECK(std::fabs(mix(double{lambda}, double{x}, double{y}) - exact) <= 1e-15);
  }
}

TEST_CASE("mixing: lambda 1 and 0 give the two sides exactly") {
  for (uint64_t i = 0; i < 1000; ++i) {
    const float x = value(i, 1), y = value(i, 2);
    CHECK(mix(1.0f, x, y) == x);
    CHECK(mix(0.0f, x, y) == y);
    CHECK(mix_transposed(1.0f, x, 1.0f, y) == x);
    CHECK(mix_transposed(0.0f, x, 0.0f, y) == y);
  }
}

TEST_CASE("mixing: a non-finite partner is not hidden by lambda 1") {
  CHECK(std::isnan(mix(1.0f, 0.5f, INFINITY)));
  CHECK(std::isnan(mix(1.0f, 0.5f, NAN)));
  CHECK(std::isnan(mix(NAN, 0.5f, 0.5f)));
}

TEST_CASE("mixing: extrapolated unit vectors score by the closed form, never above the pair") {
  // Equation (2): q^.k^ = S + 2 lambda (1 - lambda) (1 - S).
  for (double angle : {0.0, 0.3, 1.2, 2.5})
    for (double lambda : {1.0, 1.3, 2.0}) {
      const double q[2] = {1.0, 0.0}, k[2] = {std::cos(angle), std::sin(angle)};
      double mixed = 0;
      for (int c = 0; c < 2; ++c) mixed += mix(lambda, q[c], k[c]) * mix(lambda, k[c], q[c]);
      const double s = std::cos(angle);
      CHECK(std::fabs(mixed - (s + 2 * lambda * (1 - lambda) * (1 - s))) < 1e-14);
      CHECK(mixed <= s + 1e-14);
    }
}

TEST_CASE("mixing: the gradient of a pair is the mixed pair of gradients") {
  // f = u.q^ + v.k^ is linear: df/dq = lambda u + (1 - lambda) v.
  const double lambda = 1.37, u = 0.4, v = -0.9, q = 0.2, k = 0.7, h = 0.125;
  const auto f = [&](double at_q, double at_k) { return u * mix(lambda, at_q, at_k) + v * mix(lambda, at_k, at_q); };
  CHECK(std::fabs((f(q + h, k) - f(q - h, k)) / (2 * h) - mix(lambda, u, v)) < 1e-14);
  CHECK(std::fabs((f(q, k + h) - f(q, k - h)) / (2 * h) - mix(lambda, v, u)) < 1e-14);
}

TEST_CASE("mixing: weights of raw rows give the same sum as weights of mixed rows") {
  constexpr int kRows = 4;
  const double lambda[kRows] = {0.1, 0.9, 0.4, 0.7}, p[kRows] = {0.5, 0.2, 0.1, 0.3}, z[kRows] = {1.0, -2.0, 0.5, 3.0};
  const int partner[kRows] = {2, 0, 3, 1};
  double mixed = 0, raw = 0;
  for (int j = 0; j < kRows; ++j) {
    mixed += p[j] * mix(lambda[j], z[j], z[partner[j]]);
    int before = 0;
    while (partner[before] != j) ++before;
    raw += mix_transposed(lambda[j], p[j], lambda[before], p[before]) * z[j];
  }
  CHECK(std::fabs(mixed - raw) < 1e-14);
}
