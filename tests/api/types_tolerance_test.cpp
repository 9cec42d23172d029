// The tolerance policy for element types: what it accepts and what it must reject, by planting errors into the
// oracle's own results. Nothing of the library's arithmetic takes part.
#include <algorithm>
#include <cmath>
#include <limits>

#include "support/check.h"
#include "support/compare.h"
#include "support/order.h"
#include "support/planted.h"
#include "support/random_case.h"

namespace {

using namespace support;
using oracle::Element;
using oracle::Products;

// To so many significant binary digits.
WeightRounding to_digits(int count) {
  return [count](double weight) { return cut(weight, count, true); };
}

}  // namespace

TEST_CASE(
    "tolerance: gradients rounded once to their type are accepted; cut off, or rounded to a digit less, rejected") {
  for (const Element type : {Element::kFloat16, Element::kBfloat16}) {
    oracle::Inputs in = ordinary_inputs(FNCE_LAMBDA_CALL, Products::kFloat32);
    in.gradient_type = type;
    const Truth truth(in);
    REQUIRE(gradient_has_signal(truth));
    CHECK(accepts(truth, outputs_of(truth.exact, type)));
    CHECK(accepts(truth, outputs_of(truth.naive, type)));
    const int digits = type == Element::kFloat16 ? 11 : 8;
    for (const bool nearest : {false, true}) {
      Outputs bad = outputs_of(truth.exact);
      bad.dq = cut(bad.dq, nearest ? digits - 1 : digits, nearest);
      CHECK_FALSE(accepts(truth, bad));
    }
    // The float32 policy is not loosened for results that are not rounded.
    in.gradient_type = Element::kFloat32;
    CHECK_FALSE(accepts(Truth(in), outputs_of(truth.exact, type)));
  }
}

TEST_CASE("tolerance: gradients that overflow float16 must be infinite, those far below must not") {
  oracle::Inputs in = ordinary_inputs(FNCE_LAMBDA_NONE, Products::kFloat32);
  in.gradient_type = Element::kFloat16;
  in.weight.assign(20, 1.0);
  in.weight[3] = 1e9;
  const Truth truth(in);
  const Outputs good = outputs_of(truth.exact, Element::kFloat16);
  REQUIRE(accepts(truth, good));
  REQUIRE(std::isinf(good.dq[3 * 64]));
  Outputs bad = good;
  bad.dq[3 * 64] = 65504.0f;
  CHECK_FALSE(accepts(truth, bad));
  bad = good;
  bad.dq[5] = std::numeric_limits<float>::infinity();
  CHECK_FALSE(accepts(truth, bad));
}

TEST_CASE("tolerance: the bfloat16 engine's twin is accepted, with and without mixing") {
  for (const int32_t granularity : {FNCE_LAMBDA_NONE, FNCE_LAMBDA_CALL, FNCE_LAMBDA_ELEMENT})
    for (const bool mixes_rows : {false, true}) {
      if (granularity == FNCE_LAMBDA_ELEMENT && !mixes_rows) continue;
      const Truth truth(ordinary_inputs(granularity, Products::kBfloat16, 272, mixes_rows));
      CHECK(gradient_has_signal(truth));
      CHECK(accepts(truth, outputs_of(truth.exact)));
      FNCE_CHECK_VERDICT(compare_loss(truth, outputs_of(truth.naive), Want{}));
    }
}

TEST_CASE("tolerance: weights rounded to bfloat16 at any maximum are accepted, to three digits less rejected") {
  for (const int64_t k : {48, 272, 2000}) {
    oracle::Inputs in = ordinary_inputs(FNCE_LAMBDA_NONE, Products::kBfloat16, k);
    const Truth truth(in);
    INFO("k " << k);
    for (const double shift : {0.0, 0.31, 5.7, -3.3})
      FNCE_CHECK_VERDICT(compare_loss(truth, with_weights(truth, shift, to_digits(8)), Want{}));
    CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, to_digits(5))));
    CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, to_digits(1))));
  }
}

TEST_CASE("tolerance: a key dropped from the sums or from the loss is rejected under bfloat16 products") {
  const Truth truth(ordinary_inputs(FNCE_LAMBDA_NONE, Products::kBfloat16));
  REQUIRE(accepts(truth, with_weights(truth, 0.31, to_digits(8))));
  for (const int64_t dropped : {int64_t{0}, int64_t{100}, int64_t{271}})
    CHECK_FALSE(accepts(truth, with_weights(truth, 0.31, to_digits(8), dropped)));
  for (const int64_t dropped : {int64_t{0}, int64_t{100}, int64_t{271}})
    CHECK_FALSE(accepts(truth, without_column(truth, dropped)));
}

TEST_CASE("tolerance: an anchor that is not rounded, or cut off, is rejected under bfloat16 products") {
  const oracle::Inputs in = ordinary_inputs(FNCE_LAMBDA_NONE, Products::kBfloat16);
  const Truth truth(in);
  oracle::Inputs exact = in;
  exact.products = Products::kFloat32;
  const Outputs unrounded = outputs_of(oracle::evaluate<double>(exact));
  CHECK_FALSE(accepts(truth, unrounded));
  CHECK(accepts(Truth(exact), unrounded));
}

TEST_CASE("tolerance: the order of a pass, from the document, gives the permutation that the library draws") {
  for (const int64_t k : {1, 5, 16, 37, 257, 1000}) {
    Case c = make_case(FNCE_PRESET_FT, 1, k, 4);
    c.numbers.seed = 0x123456789abcdefull + static_cast<uint64_t>(k);
    c.numbers.offset = 4 * static_cast<uint64_t>(k);
    const std::vector<int32_t> permutation = permutation_of(c);
    std::vector<int64_t> order(static_cast<size_t>(k));
    for (int64_t i = 0; i < k; ++i) order[i] = sigma_at(c.numbers.seed, c.numbers.offset, 0, k, i);
    size_t neighbours = 0;  // most partners stand one place further
    for (size_t i = 0; i + 1 < order.size(); ++i) neighbours += permutation[order[i]] == order[i + 1];
    INFO("k " << k);
    CHECK(neighbours >= order.size() / 2);
    const std::vector<bool> beyond = rows_beyond_cycles(c);
    CHECK(std::count(beyond.begin(), beyond.end(), true) == k % 16);
    for (size_t j = 0; j < order.size(); ++j)
      if (beyond[j]) CHECK(beyond[permutation[j]]);  // cycles do not leave the rest
  }
}
