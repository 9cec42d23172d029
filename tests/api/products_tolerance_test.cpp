// The tolerance policy for float16 products: what it accepts of each arithmetic and what it must reject, by planting
// errors into the oracle's own results. Nothing of the library's arithmetic takes part.
#include <cmath>
#include <string>
#include <vector>

#include "oracle/forward.h"
#include "oracle/operands.h"
#include "support/check.h"
#include "support/planted.h"
#include "support/products.h"

namespace {

using namespace support;
using oracle::Element;
using oracle::Inputs;
using oracle::Products;

constexpr Products kHalves[] = {Products::kFloat16, Products::kFloat16Fast};
constexpr Products kAll[] = {Products::kFloat16, Products::kFloat16Split, Products::kFloat16Fast};

// The power of two that brings the largest weight, exp(-shift), to [1, 2).
int exponent_of(double shift) { return static_cast<int>(std::ceil(shift / std::log(2.0))); }

// As float16 with the largest weight at 2^exponent: 11 digits, multiples of 2^-24 at the end.
WeightRounding as_float16(double shift, int exponent) {
  return [=](double weight) { return oracle::rounded(Element::kFloat16, weight, exponent + exponent_of(shift)); };
}

// The sum of two float16.
double as_two_halves(double value, int exponent) {
  const double high = oracle::rounded(Element::kFloat16, value, exponent);
  return high + oracle::rounded(Element::kFloat16, value - high, exponent);
}

WeightRounding as_two_halves_at(double shift) {
  return [=](double weight) { return as_two_halves(weight, 13 + exponent_of(shift)); };
}

WeightRounding to_digits(int count) {
  return [count](double weight) { return cut(weight, count, true); };
}

// What another arithmetic makes of the same inputs.
Outputs by(const Inputs& in, Products products) {
  Inputs other = in;
  other.products = products;
  return outputs_of(oracle::evaluate<double>(other));
}

// The same arithmetic of another queue.
Outputs with_queue(const Inputs& in, const oracle::Rounding& rounding) {
  Inputs other = in;
  other.queue = oracle::rounded_rows(rounding, in.queue, in.d);
  return outputs_of(oracle::evaluate<double>(other));
}

}  // namespace

TEST_CASE("tolerance: the twin of every float16 arithmetic is accepted, with and without mixing") {
  for (const Products products : kAll)
    for (const int32_t granularity : {FNCE_LAMBDA_NONE, FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW, FNCE_LAMBDA_ELEMENT})
      for (const bool mixes_rows : {false, true}) {
        if (granularity == FNCE_LAMBDA_ELEMENT && !mixes_rows) continue;
        INFO("products " << static_cast<int>(products) << ", granularity " << granularity);
        const Truth truth(ordinary_inputs(granularity, products, 272, mixes_rows));
        CHECK(gradient_has_signal(truth));
        CHECK(accepts(truth, outputs_of(truth.exact)));
        FNCE_CHECK_VERDICT(compare_loss(truth, outputs_of(truth.naive), Want{}));
      }
}

TEST_CASE("tolerance: weights rounded to float16 anywhere in its range are accepted, to bfloat16's digits rejected") {
  for (const Products products : kHalves)
    for (const int64_t k : {48, 272, 2000}) {
      INFO("products " << static_cast<int>(products) << ", k " << k);
      const Truth truth(ordinary_inputs(FNCE_LAMBDA_NONE, products, k));
      for (const double shift : {0.0, 0.31, 5.7, -3.3})
        for (const int exponent : {7, 10, 13})
          FNCE_CHECK_VERDICT(compare_loss(truth, with_weights(truth, shift, as_float16(shift, exponent)), Want{}));
      for (const int digits : {8, 5}) CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, to_digits(digits))));
      // Not scaled up: the largest weights near the end of float16.
      CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, as_float16(0.31, -18))));
    }
}

TEST_CASE("tolerance: a key dropped from the sums or from the loss is rejected under float16 products") {
  for (const Products products : kAll) {
    INFO("products " << static_cast<int>(products));
    const Truth truth(ordinary_inputs(FNCE_LAMBDA_NONE, products));
    const bool split = products == Products::kFloat16Split;
    const WeightRounding rounding = split ? as_two_halves_at(0.31) : as_float16(0.31, 10);
    REQUIRE(accepts(truth, with_weights(truth, 0.31, rounding)));
    for (const int64_t dropped : {0, 100, 271}) {
      CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, rounding, dropped)));
      CHECK_FALSE(accepts(truth, without_column(truth, dropped)));
    }
  }
}

TEST_CASE("tolerance: an anchor that is not rounded, or to another number of digits, is rejected") {
  for (const Products products : kHalves) {
    INFO("products " << static_cast<int>(products));
    const Inputs in = ordinary_inputs(FNCE_LAMBDA_NONE, products);
    const Truth truth(in);
    for (const int digits : {24, 10, 9, 8}) {
      INFO("digits " << digits);
      // The losses of anchors of so many digits, everything else as it was.
      std::vector<double> anchor = truth.exact.anchor;
      for (double& x : anchor) x = cut(x, digits, true);
      const std::vector<double> score = oracle::inner_products(anchor, truth.exact.negatives, in.n, in.d);
      Outputs bad = outputs_of(truth.exact);
      for (int64_t i = 0; i < in.n; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < in.k; ++j)
          sum += std::exp((score[i * in.k + j] - truth.exact.mixed.pos[i]) / in.temperature);
        bad.loss[static_cast<size_t>(i)] = static_cast<float>(std::log1p(sum));
      }
      CHECK_FALSE(accepts(truth, bad));
    }
    CHECK_FALSE(accepts(truth, by(in, Products::kBfloat16)));
  }
}

TEST_CASE(
    "tolerance: a float32 queue that is not rounded to float16, or to fewer digits, is rejected under fast products") {
  const Inputs in = ordinary_inputs(FNCE_LAMBDA_NONE, Products::kFloat16Fast);
  const Truth truth(in);
  Inputs unrounded = in;
  unrounded.negatives_fit = false;
  CHECK_FALSE(accepts(truth, outputs_of(oracle::evaluate<double>(unrounded))));
  CHECK_FALSE(accepts(truth, with_queue(in, {Element::kBfloat16, 0, false})));
}

TEST_CASE("tolerance: mixed rows that are not rounded, or scores mixed in their place, are rejected") {
  for (const Products products : kHalves) {
    INFO("products " << static_cast<int>(products));
    const Inputs in = ordinary_inputs(FNCE_LAMBDA_ROW, products, 272, true);
    const Truth truth(in);
    Inputs scores = in;
    scores.mixed_as_row.assign(272, false);
    const Outputs other = outputs_of(oracle::evaluate<double>(scores));
    CHECK_FALSE(accepts(truth, other));
    CHECK(accepts(Truth(scores), other));
    CHECK_FALSE(accepts(truth, by(in, Products::kFloat32)));
  }
}

TEST_CASE("tolerance: under split products the three products are accepted, any one left out is rejected") {
  for (const bool mixes_rows : {false, true}) {
    const Inputs in =
        ordinary_inputs(mixes_rows ? FNCE_LAMBDA_CALL : FNCE_LAMBDA_NONE, Products::kFloat16Split, 272, mixes_rows);
    const Truth truth(in);
    REQUIRE(accepts(truth, by(in, Products::kFloat32)));
    CHECK_FALSE(accepts(truth, by(in, Products::kFloat16Fast)));
    CHECK_FALSE(accepts(truth, by(in, Products::kFloat16)));
    // h of the anchor alone, h of the queue alone.
    Inputs anchor = in;
    anchor.products = Products::kFloat16Fast;
    anchor.negatives_fit = false;
    CHECK_FALSE(accepts(truth, outputs_of(oracle::evaluate<double>(anchor))));
    CHECK_FALSE(accepts(truth, with_queue(in, {Element::kFloat16, 14, false})));
  }
}

TEST_CASE("tolerance: split operands of two float16 are accepted, of 14 digits or less rejected, and so are weights") {
  // Few columns and a high temperature, where nothing averages out or amplifies the errors of float32.
  Inputs in = ordinary_inputs(FNCE_LAMBDA_NONE, Products::kFloat16Split, 16);
  in.temperature = 1;
  const Truth truth(in);
  Inputs halves = in;
  for (double& x : halves.queue) x = as_two_halves(x, 14);
  CHECK(accepts(truth, outputs_of(oracle::evaluate<double>(halves))));
  for (const double shift : {0.0, 0.31, -3.3})
    FNCE_CHECK_VERDICT(compare_loss(truth, with_weights(truth, shift, as_two_halves_at(shift)), Want{}));
  CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, as_float16(0.31, 13))));
  for (const int digits : {14, 12, 11}) {
    INFO("digits " << digits);
    Inputs cut_off = in;
    for (double& x : cut_off.queue) x = cut(x, digits, true);
    CHECK_FALSE(accepts(truth, outputs_of(oracle::evaluate<double>(cut_off))));
    CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, to_digits(digits))));
  }
}

TEST_CASE("tolerance: float16 arithmetic of rows scaled by a power of two is the same arithmetic") {
  Inputs in = ordinary_inputs(FNCE_LAMBDA_NONE, Products::kFloat16);
  in.normalize = false;
  const oracle::Rounding rounding = oracle::anchor_rounding(in);
  const std::vector<double> rows = oracle::rounded_rows(rounding, in.x_q, in.d);
  for (const int exponent : {-100, -24, 24, 100}) {
    std::vector<double> scaled = in.x_q;
    for (double& x : scaled) x = std::ldexp(x, exponent);
    scaled = oracle::rounded_rows(rounding, scaled, in.d);
    for (size_t i = 0; i < rows.size(); ++i) REQUIRE(scaled[i] == std::ldexp(rows[i], exponent));
  }
  // The largest element has 11 digits; far below it there are multiples of 2^-24 at a scale of 2^13.
  const std::vector<double> row =
      oracle::rounded_rows(rounding, std::vector<double>{1 + 0x1.8p-11, 0x1.4p-37, 0x1p-39}, 3);
  CHECK(row == std::vector<double>{1 + 0x1p-10, 0x1p-37, 0});
}

TEST_CASE("tolerance: each code of products is one of the oracle's, and no other code is") {
  CHECK(products_of(FNCE_PRODUCTS_FLOAT32) == Products::kFloat32);
  CHECK(products_of(FNCE_PRODUCTS_BFLOAT16) == Products::kBfloat16);
  CHECK(products_of(FNCE_PRODUCTS_FLOAT16) == Products::kFloat16);
  CHECK(products_of(FNCE_PRODUCTS_FLOAT16X3) == Products::kFloat16Split);
  CHECK(products_of(FNCE_PRODUCTS_FLOAT16_FAST) == Products::kFloat16Fast);
  for (const int32_t code : {0, 4, 9, 12}) CHECK_THROWS(products_of(code));
}

TEST_CASE("tolerance: a planted relative error of 2e-4 in one row is rejected under split products") {
  const int32_t granularity = GENERATE(values<int32_t>({FNCE_LAMBDA_NONE, FNCE_LAMBDA_CALL, FNCE_LAMBDA_ELEMENT}));
  const Truth truth(ordinary_inputs(granularity, Products::kFloat16Split, 272, granularity == FNCE_LAMBDA_ELEMENT));
  const Outputs good = outputs_of(truth.exact);
  for (size_t row = 0; row < 20; ++row) {
    INFO("row " << row);
    Outputs bad = good;
    bad.loss[row] *= 1 + 2e-4f;
    CHECK_FALSE(accepts(truth, bad));
    for (auto* gradient : {&bad.dq, &bad.dk}) {
      bad = good;
      for (size_t col = 0; col < 64; ++col) (*gradient)[row * 64 + col] *= 1 + 2e-4f;
      CHECK_FALSE(accepts(truth, bad));
    }
  }
}

TEST_CASE("tolerance: a bulk of weights 17 nats below the largest counts in float16, flushed to zero it is missed") {
  const int64_t k = 60000, d = 3;
  Inputs in;
  in.n = 1, in.k = k, in.d = d;
  in.x_q = {1, 0, 0};
  in.x_k = {-0.5, 0, 0.5};
  in.temperature = 0.1;
  in.products = Products::kFloat16;
  in.queue_type = Element::kFloat16;
  in.mixed_as_row.assign(static_cast<size_t>(k), false);
  for (int64_t j = 0; j < k; ++j) in.queue.insert(in.queue.end(), {j == 0 ? 0.85 : -0.85, j == 0 ? 0 : 0.5, 0});
  const Truth truth(in);
  for (const int exponent : {6, 10, 13})
    FNCE_CHECK_VERDICT(compare_loss(truth, with_weights(truth, 0, as_float16(0, exponent)), Want{}));
  CHECK_FALSE(accepts(truth, with_weights(truth, 0, as_float16(0, -2))));
  CHECK_FALSE(accepts(truth, with_weights(truth, 0, [](double weight) { return weight < 1e-6 ? 0.0 : weight; })));
}
