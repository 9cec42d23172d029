// Every pair of choices that a call can make, in about a hundred cases against the oracle.
// FNCE_TEST_PAIRWISE_STRIDE=s runs every s-th case.
#include <cstdlib>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/option_grid.h"

using namespace support;

TEST_CASE("pairwise: every pair that can occur is covered, in about a hundred cases") {
  const CoveringArray& array = option_grid();
  const std::vector<Parameter>& parameters = grid_parameters();
  // Again, by a plain look at the rows: what no row has must be impossible.
  int64_t covered = 0, all = 0;
  for (size_t i = 0; i < parameters.size(); ++i)
    for (size_t j = i + 1; j < parameters.size(); ++j) {
      std::vector<bool> seen(parameters[i].values.size() * parameters[j].values.size(), false);
      for (const Choice& row : array.rows)
        seen[static_cast<size_t>(row[i]) * parameters[j].values.size() + static_cast<size_t>(row[j])] = true;
      for (const bool one : seen) covered += one;
      all += static_cast<int64_t>(seen.size());
    }
  CHECK(covered == array.covered);
  CHECK(covered + array.impossible == all);
  // 4 pairs of the positives' mixing, 6 of the negatives' alone, 5 of columns with them, 4 of columns or blocks with
  // sources.
  CHECK(array.impossible < 30);
  CHECK(array.rows.size() >= 90);
  CHECK(array.rows.size() <= 130);
  for (const Choice& row : array.rows) CHECK(grid_allows(row));
}

TEST_CASE("pairwise: every case of the covering array against the oracle") {
  const char* text = std::getenv("FNCE_TEST_PAIRWISE_STRIDE");
  const size_t stride = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
  REQUIRE(stride >= 1);
  for (size_t i = 0; i < option_grid().rows.size(); i += stride) {
    const Case c = grid_case(i);
    INFO(c.label);
    FNCE_CHECK_VERDICT(check_case(c));
  }
}
