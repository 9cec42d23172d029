// Existence of columns, apart from what their scores are: of a stretch, and of all of them together.
#include "core/columns.h"

#include <cmath>

#include "support/catch.h"

using namespace fnce;

TEST_CASE("columns: a stretch says whether a row met none, some, or one that is not finite") {
  CHECK(ended_maximum(kMinusInfinity, {0, true}) == kNoColumn);
  CHECK(ended_maximum(kMinusInfinity, {1, true}) == kMinusInfinity);
  CHECK(ended_maximum(3.0f, {5, true}) == 3.0f);
  CHECK(ended_sum(2.0f, {5, true}) == 2.0f);
  for (const int64_t count : {0, 5}) {
    CHECK(std::isnan(ended_maximum(3.0f, {count, false})));
    CHECK(std::isnan(ended_sum(2.0f, {count, false})));
  }
  const RowColumns met = both(both(RowColumns(), {3, true}), {4, false});
  CHECK(met.count == 7);
  CHECK(!met.finite);
}

TEST_CASE("columns: a row without any is no overflow, and an overflow is no row without any") {
  CHECK(merged_maximum(kNoColumn) == kMinusInfinity);
  CHECK(merged_maximum(static_cast<double>(kNoColumn)) == static_cast<double>(kMinusInfinity));
  CHECK(std::isnan(merged_maximum(kMinusInfinity)));
  CHECK(merged_maximum(-2.0f) == -2.0f);
  CHECK(std::isnan(merged_maximum(NAN)));
  CHECK(natural_maximum(2.0f) == 2.0 * kLn2);
  CHECK(natural_maximum(kMinusInfinity) == static_cast<double>(kMinusInfinity));

  CHECK(natural_log_sum(kMinusInfinity, 0.0f, 0).l == 0.0);
  CHECK(log_sum_exp(natural_log_sum(kMinusInfinity, 0.0f, 0)) == static_cast<double>(kMinusInfinity));
  CHECK(std::isnan(natural_log_sum(kMinusInfinity, 1.0f, 4).m));
  CHECK(natural_log_sum(2.0f, 1.0f, 4).m == 2.0 * kLn2);
}
