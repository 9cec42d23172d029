// The end of a row: rules for weights, for what is not finite, and for a row without columns.
#include "math/row.h"

#include <cmath>

#include "support/catch.h"

using namespace fnce;

namespace {

constexpr float kScale = 5 * static_cast<float>(kLog2e);  // temperature 0.2

}  // namespace

TEST_CASE("row: the score scale is log2(e) / temperature, and NaN for a temperature that is none") {
  CHECK(score_scale(0.2f) == static_cast<float>(kLog2e / static_cast<double>(0.2f)));
  for (const float wrong : {0.0f, -1.0f, NAN, INFINITY}) CHECK(std::isnan(score_scale(wrong)));
}

TEST_CASE("row: the loss is the logsumexp over all columns minus the positive") {
  const RowResult row = row_result(2.0f, 3.0f, 0.5f, kScale, true);
  const double pos = 0.5 * 5, lse = 2 + std::log(3.0);
  CHECK(row.finite);
  CHECK(std::fabs(row.pos - pos) < 1e-6);
  CHECK(std::fabs(row.loss - (std::log(std::exp(lse) + std::exp(pos)) - pos)) < 1e-6);
  CHECK(std::fabs(row.w - std::exp(lse) / (std::exp(lse) + std::exp(pos))) < 1e-6);
}

TEST_CASE("row: without columns loss, weight and what follows from them are exact zeros") {
  const RowResult row = row_result(kMinusInfinity, 0.0f, 0.5f, kScale, true);
  CHECK(row.finite);
  CHECK(row.loss == 0.0);
  CHECK(row.w == 0.0);
  CHECK(inverse_sum(0.0f) == 0.0f);
  CHECK(weighted_loss(row, 2.0f) == 0.0f);
  const RowScalars scalars = row_scalars(row, 0.0f, 1.0f, 0.2f);
  CHECK(scalars.entropy == 0.0f);
  CHECK(scalars.dtemperature == 0.0f);
}

TEST_CASE("row: what is not finite makes its row NaN, unless the row has weight 0") {
  for (const RowResult& bad :
       {row_result(NAN, 1.0f, 0.5f, kScale, true), row_result(1.0f, INFINITY, 0.5f, kScale, true),
        row_result(1.0f, 1.0f, NAN, kScale, true), row_result(1.0f, 1.0f, 0.5f, NAN, true),
        row_result(1.0f, 1.0f, 0.5f, kScale, false)}) {
    CHECK(!bad.finite);
    CHECK(std::isnan(weighted_loss(bad, 1.0f)));
    CHECK(weighted_loss(bad, 0.0f) == 0.0f);
    CHECK(!has_gradient(bad, 1.0f));
  }
  const RowResult good = row_result(1.0f, 1.0f, 0.5f, kScale, true);
  CHECK(has_gradient(good, -1.0f));
  for (const float weight : {0.0f, NAN, INFINITY}) CHECK(!has_gradient(good, weight));
  CHECK(gradient_filler(0.0f) == 0.0f);
  CHECK(std::isnan(gradient_filler(1.0f)));
}

TEST_CASE("row: gradients carry the weight and the reduction") {
  CHECK(upstream_factor(3.0f, false, 4) == 3.0f);
  CHECK(upstream_factor(3.0f, true, 4) == 0.75f);
}
