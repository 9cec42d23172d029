// Normalisation and its backward rule: against finite differences in double, at and around epsilon, with non-finite
// norms.
#include "math/norm.h"

#include "support/catch.h"

#include <array>
#include <cmath>

using namespace fnce;

namespace {

using Vector = std::array<double, 3>;

double dot(const Vector& x, const Vector& y) { return x[0] * y[0] + x[1] * y[1] + x[2] * y[2]; }

Vector normalise(const Vector& v, double epsilon) {
  const double inverse = inverse_norm(std::sqrt(dot(v, v)), epsilon);
  return {v[0] * inverse, v[1] * inverse, v[2] * inverse};
}

}  // namespace

TEST_CASE("norm: the inverse of the larger of norm and epsilon") {
  CHECK(inverse_norm(4.0f, 1e-12f) == 0.25f);
  CHECK(inverse_norm(0.0f, 0.5f) == 2.0f);
  CHECK(inverse_norm(0.5f, 0.5f) == 2.0f);
  CHECK(inverse_norm(0.25, 0.5) == 2.0);
  CHECK(std::isfinite(inverse_norm(0.0f, 1.17549435e-38f)));
}

TEST_CASE("norm: a NaN norm is not replaced by epsilon, an infinite one divides to 0 as F.normalize does") {
  CHECK(std::isnan(inverse_norm(NAN, 1e-12f)));
  CHECK(std::isnan(apply(norm_backward(NAN, 1e-12f, 0.5f), 1.0f, 1.0f)));
  CHECK(inverse_norm(INFINITY, 1e-12f) == 0.0f);
}

TEST_CASE("norm: backward against finite differences, above and below epsilon") {
  const Vector v = {0.3, -1.1, 0.7}, g = {0.9, 0.2, -0.4};
  for (double epsilon : {1e-12, 1.0, 2.0}) {
    const Vector y = normalise(v, epsilon);
    const NormBackward<double> rule = norm_backward(std::sqrt(dot(v, v)), epsilon, dot(g, y));
    for (int c = 0; c < 3; ++c) {
      Vector up = v, down = v;
      up[c] += 1e-6;
      down[c] -= 1e-6;
      const double slope = (dot(g, normalise(up, epsilon)) - dot(g, normalise(down, epsilon))) / 2e-6;
      INFO("epsilon " << epsilon << ", component " << c);
      CHECK(std::fabs(apply(rule, g[c], y[c]) - slope) < 1e-9);
    }
  }
}

TEST_CASE("norm: the gradient has no part along the vector, except below epsilon") {
  const Vector v = {3.0, 4.0, 0.0};
  const Vector y = normalise(v, 1e-12), g = y;
  const NormBackward<double> above = norm_backward(5.0, 1e-12, dot(g, y));
  const NormBackward<double> below = norm_backward(5.0, 10.0, dot(g, y));
  for (int c = 0; c < 3; ++c) {
    CHECK(std::fabs(apply(above, g[c], y[c])) < 1e-15);
    CHECK(std::fabs(apply(below, g[c], y[c]) - g[c] / 10.0) < 1e-16);
  }
}

TEST_CASE("norm: epsilon itself counts as above") {
  CHECK(norm_backward(0.5f, 0.5f, 1.0f).along_y == 2.0f);
  CHECK(norm_backward(0.49f, 0.5f, 1.0f).along_y == 0.0f);
}

TEST_CASE("norm: float agrees with double") {
  for (float norm : {1e-30f, 1e-12f, 0.7f, 1.0f, 3.5f, 1e10f})
    for (float product : {-0.9f, 0.0f, 0.3f}) {
      const NormBackward<float> rule = norm_backward(norm, 1e-12f, product);
      const NormBackward<double> exact = norm_backward<double>(norm, double{1e-12f}, product);
      CHECK(std::fabs(rule.along_g - exact.along_g) <= 0x1p-23 * exact.along_g);
      CHECK(std::fabs(rule.along_y - exact.along_y) <= 0x1p-22 * std::fabs(exact.along_y));
    }
}
