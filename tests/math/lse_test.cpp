// Running logsumexp and the loss of a row against long double, and their edges: no columns, masked columns, large and
// non-finite scores.
#include "math/lse.h"

#include "math/philox.h"
#include "support/catch.h"

#include <algorithm>
#include <cmath>
#include <vector>

using namespace fnce;

namespace {

std::vector<float> scores(uint64_t seed, std::size_t n, float scale) {
  std::vector<float> s(n);
  for (std::size_t i = 0; i < n; ++i) {
    const int32_t bits = static_cast<int32_t>(draw_block(seed, 0, Stream::kLambdaNeg, i).word[0]);
    s[i] = static_cast<float>(bits) * 0x1p-31f * scale;
  }
  return s;
}

long double exact_lse(const std::vector<float>& s) {
  const long double m = *std::max_element(s.begin(), s.end());
  long double l = 0;
  for (float x : s) l += std::exp(x - m);
  return m + std::log(l);
}

template <class T>
LogSum<T> push_all(const std::vector<float>& s, std::size_t first, std::size_t last) {
  LogSum<T> sum;
  for (std::size_t i = first; i < last; ++i) sum = push(sum, static_cast<T>(s[i]));
  return sum;
}

constexpr double kNan = NAN;

}  // namespace

TEST_CASE("lse: pushing and merging against long double") {
  for (float scale : {0.0f, 1.0f, 14.0f, 400.0f})
    for (std::size_t n : {1u, 2u, 37u, 1000u}) {
      const std::vector<float> s = scores(n, n, scale);
      const long double exact = exact_lse(s);
      const std::size_t cut = n / 3;
      const auto merged = merge(push_all<double>(s, 0, cut), push_all<double>(s, cut, n));
      INFO("n " << n << ", scale " << scale);
      CHECK(std::fabs(log_sum_exp(push_all<double>(s, 0, n)) - exact) <= 1e-13 * (1 + scale));
      CHECK(std::fabs(log_sum_exp(merged) - exact) <= 1e-13 * (1 + scale));
      // float32: one rounding per push of l, relative 2^-24 each, and of the result.
      const long double bound = 0x1p-24L * (3.0L * static_cast<long double>(n) + std::fabs(exact) + scale);
      CHECK(std::fabs(log_sum_exp(push_all<float>(s, 0, n)) - exact) <= bound);
    }
}

TEST_CASE("lse: empty sums are neutral and count as -1e30") {
  const LogSum<float> empty;
  const LogSum<float> one = push(empty, -3.25f);
  CHECK(log_sum_exp(empty) == -1e30f);
  CHECK(log_sum_exp(merge(empty, empty)) == -1e30f);
  CHECK(log_sum_exp(one) == -3.25f);
  CHECK(log_sum_exp(merge(empty, one)) == -3.25f);
  CHECK(log_sum_exp(merge(one, empty)) == -3.25f);
  CHECK(log_sum_exp(push(empty, -INFINITY)) == -1e30f);
  CHECK(log_sum_exp(push(one, -INFINITY)) == -3.25f);
}

TEST_CASE("lse: NaN and +infinity stay, whatever the order") {
  for (float bad : {NAN, INFINITY}) {
    LogSum<float> first = push(push(LogSum<float>{}, bad), 1.0f), last = push(push(LogSum<float>{}, 1.0f), bad);
    CHECK(std::isnan(log_sum_exp(first)));
    CHECK(std::isnan(log_sum_exp(last)));
    CHECK(std::isnan(log_sum_exp(merge(first, LogSum<float>{}))));
    CHECK(std::isnan(log_sum_exp(merge(LogSum<float>{}, first))));
    CHECK(std::isnan(log_sum_exp(merge(push(LogSum<float>{}, 1e9f), last))));
  }
}

TEST_CASE("lse: softplus and sigmoid against long double over the whole range") {
  for (double x = -120; x <= 120; x += 0.37) {
    const long double y = x;
    const long double loss = y > 0 ? y + std::log1p(std::exp(-y)) : std::log1p(std::exp(y));
    const long double w = 1 / (1 + std::exp(-y));
    CHECK(std::fabs(softplus(x) - loss) <= 4e-16L * loss);
    CHECK(std::fabs(sigmoid(x) - w) <= 4e-16L * w);
    const float xf = static_cast<float>(x);
    const long double yf = xf;
    const long double loss_f = yf > 0 ? yf + std::log1p(std::exp(-yf)) : std::log1p(std::exp(yf));
    const long double w_f = 1 / (1 + std::exp(-yf));
    // The relative error also holds where the loss is tiny: nothing cancels. Results below 2^-126 are subnormal.
    CHECK(std::fabs(softplus(xf) - loss_f) <= 4 * 0x1p-24L * loss_f + 0x1p-149L);
    CHECK(std::fabs(sigmoid(xf) - w_f) <= 4 * 0x1p-24L * w_f + 0x1p-149L);
  }
}

TEST_CASE("lse: a row without columns has loss 0 and weight 0, exactly") {
  for (float pos : {-1000.0f, 0.0f, 14.3f, 1e20f}) {
    const RowLoss<float> row = row_loss(log_sum_exp(LogSum<float>{}), pos);
    CHECK(row.loss == 0.0f);
    CHECK(row.w == 0.0f);
  }
}

TEST_CASE("lse: the loss is logsumexp over all columns minus the positive") {
  const std::vector<float> s = scores(5, 50, 10.0f);
  for (float pos : {-9.0f, 0.0f, 12.0f, 40.0f}) {
    std::vector<float> all = s;
    all.push_back(pos);
    const RowLoss<double> row = row_loss(log_sum_exp(push_all<double>(s, 0, s.size())), double{pos});
    const long double total = exact_lse(all);
    CHECK(std::fabs(row.loss - (total - pos)) < 1e-13);
    CHECK(std::fabs(row.w - (1 - std::exp(pos - total))) < 1e-13);
  }
}

TEST_CASE("lse: a non-finite logsumexp or positive never gives a finite loss") {
  for (double lse : {-1e30, 0.0, double{INFINITY}, -double{INFINITY}, kNan})
    for (double pos : {0.0, double{INFINITY}, -double{INFINITY}, kNan}) {
      const RowLoss<double> row = row_loss(lse, pos);
      const bool finite = std::isfinite(lse) && std::isfinite(pos);
      INFO("lse " << lse << ", pos " << pos);
      CHECK(std::isfinite(row.loss) == finite);
      CHECK(std::isfinite(row.w) == finite);
    }
}
