// Gaps between scores.
#include "support/margin.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "support/compare.h"

namespace support {
namespace {

oracle::Inputs without_margin(const Case& c) {
  Case bare = c;
  bare.problem.margin_mask = 0;
  return oracle_inputs(bare);
}

}  // namespace

double distance_to_margin(const Case& c) {
  double distance = std::numeric_limits<double>::infinity();
  if (c.problem.margin_mask == 0) return distance;
  for (const double above : oracle::above_positives(without_margin(c)))
    distance = std::min(distance, std::abs(above - double(c.numbers.margin)));
  return distance;
}

double margin_rounding(const Case& c) {
  const Truth truth(without_margin(c));
  double rounding = 0;
  for (const auto* scores : {&truth.condition.mixed, &truth.condition.unmixed, &truth.condition.plain})
    for (int64_t i = 0; i < c.problem.n; ++i) rounding = std::max(rounding, score_margin(*scores, i));
  return 2 * (rounding + kFloatEpsilon * std::abs(double(c.numbers.margin)));
}

bool choose_margin(Case& c) {
  std::vector<double> above = oracle::above_positives(without_margin(c));
  std::sort(above.begin(), above.end());
  double widest = 0;
  for (size_t i = above.size() / 4; i + 1 < above.size() - above.size() / 64; ++i) {
    const double gap = above[i + 1] - above[i];
    if (!(gap > widest)) continue;
    widest = gap;
    c.numbers.margin = static_cast<float>((above[i] + above[i + 1]) / 2);
  }
  c.problem.margin_mask = widest > 0 && distance_to_margin(c) > margin_rounding(c);
  return c.problem.margin_mask != 0;
}

}  // namespace support
