#include "hostcuda/planted/cases.h"

namespace main_pass {
namespace {

using sm80::Variant;

// The shapes, of any kind of columns.
std::vector<Case> shapes_of(const Case& base) {
  const sm80::Tile t = sm80::tile_of(base.operand, base.tile);
  std::vector<Case> cases;
  const auto add = [&](auto&& change) {
    Case c = base;
    c.seed = cases.size() + 1;
    change(c);
    cases.push_back(c);
  };
  add([&](Case& c) { c.n = t.rows() + 3, c.k = 2 * t.columns + 5, c.d = t.d; });
  add([&](Case& c) { c.n = 5, c.k = 9 * t.columns - 3, c.d = t.d - 8, c.splits = 3, c.growth = 6.0f; });
  add([&](Case& c) { c.n = 3, c.k = 5 * t.columns + 17, c.d = t.d / 2 + 5, c.padding = 3, c.misaligned = true; });
  add([&](Case& c) { c.n = t.rows(), c.k = 2 * t.columns, c.d = t.d, c.padding = 8, c.temperature = 0.01f; });
  add([&](Case& c) { c.n = 17, c.k = 1, c.d = t.d / 2 + 8, c.splits = 3; });
  add([&](Case& c) { c.n = 2, c.k = 0, c.d = t.d, c.splits = 2; });
  add([&](Case& c) { c.n = 9, c.k = 3 * t.columns + 31, c.d = t.d - 1, c.sums = false, c.growth = 6.0f; });
  return cases;
}

void add_not_finite(const Case& base, std::vector<Case>& cases) {
  const sm80::Tile t = sm80::tile_of(base.operand, base.tile);
  for (const float planted : {__builtin_nanf(""), __builtin_huge_valf(), -__builtin_huge_valf()})
    for (const bool sums : {true, false}) {
      Case c = base;
      c.n = 3, c.k = 2 * t.columns + 9, c.d = t.d, c.planted = planted, c.sums = sums;
      cases.push_back(c);
    }
}

// A long split over a queue whose features have a mean: what sums in the matrix units cut off, always towards zero,
// adds up.
Case long_case(const Case& base) {
  Case c = base;
  c.n = 2, c.k = 8192, c.d = sm80::tile_of(base.operand, base.tile).d, c.mean = 2.0f, c.temperature = 1.0f;
  return c;
}

void append(std::vector<Case>& all, const std::vector<Case>& more) { all.insert(all.end(), more.begin(), more.end()); }

std::vector<Case> mixed_cases(const Case& base) {
  std::vector<Case> cases;
  for (int way = 0; way < 4; ++way) {
    Case c = base;
    c.columns = Columns::kScores;
    c.lambda_per_row = way & 1;
    c.is_union = way & 2;
    append(cases, shapes_of(c));
    const sm80::Tile t = sm80::tile_of(c.operand, c.tile);
    c.n = 4, c.k = 4 * t.columns + 7, c.d = t.d, c.lambda_low = -1.0f, c.lambda_high = 2.0f, c.temperature = 0.5f;
    cases.push_back(c);
    c.lambda_low = -30.0f, c.lambda_high = 30.0f, c.temperature = 5.0f;
    cases.push_back(c);
  }
  Case c = base;
  c.columns = Columns::kScores;
  add_not_finite(c, cases);
  c.is_union = true;
  add_not_finite(c, cases);
  return cases;
}

std::vector<Case> statistics_cases(const Case& base) {
  std::vector<Case> cases;
  for (const Columns columns : {Columns::kQueue, Columns::kScores, Columns::kPremixed})
    for (int way = 0; way < 4; ++way) {
      if (columns == Columns::kQueue && way >= 2) continue;
      Case c = base;
      c.columns = columns;
      c.lambda_per_row = way & 1;
      c.is_union = way & 2;
      c.mixed_statistics = way != 3;
      c.unmixed_statistics = way != 1;
      const std::vector<Case> shapes = shapes_of(c);
      cases.insert(cases.end(), shapes.begin(), way == 0 ? shapes.end() : shapes.begin() + 2);
    }
  return cases;
}

}  // namespace

std::vector<Case> cases_of(Operand operand, int tile, Variant variant) {
  Case base;
  base.operand = operand;
  base.tile = tile;
  base.variant = variant;
  if (variant == Variant::kMixed) return mixed_cases(base);
  if (variant == Variant::kStatistics) return statistics_cases(base);
  std::vector<Case> cases = shapes_of(base);
  add_not_finite(base, cases);
  if (operand == Operand::kHalfSplit) cases.push_back(long_case(base));
  base.columns = Columns::kPremixed;
  base.is_union = true;
  append(cases, shapes_of(base));
  return cases;
}

std::vector<Case> tail_cases(Operand operand, int tile, int64_t most) {
  std::vector<Case> cases;
  for (int64_t k = 1; k <= most; ++k) {
    Case c;
    c.operand = operand;
    c.tile = tile;
    c.variant = Variant::kMixed;
    c.columns = Columns::kScores;
    c.lambda_per_row = true;
    c.lambda_low = -0.5f, c.lambda_high = 1.5f;
    c.is_union = k & 1;
    c.n = 3, c.k = k, c.d = 24;
    c.seed = static_cast<uint64_t>(k);
    cases.push_back(c);
  }
  return cases;
}

Case random_case(std::mt19937_64& random) {
  const auto below = [&](int64_t end) { return static_cast<int64_t>(random() % static_cast<uint64_t>(end)); };
  const auto one_of = [&](auto... values) {
    const float all[] = {values...};
    return all[below(sizeof...(values))];
  };
  Case c;
  constexpr Operand kOperands[] = {Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast};
  c.operand = kOperands[below(4)];
  c.variant = static_cast<Variant>(below(3));
  do {
    c.tile = static_cast<int>(below(sm80::tiles_of(c.operand).count));
  } while (c.variant == Variant::kStatistics && !sm80::has_statistics(c.operand, c.tile));
  const sm80::Tile t = sm80::tile_of(c.operand, c.tile);
  c.n = 1 + below(below(4) == 0 ? 2 * t.rows() : 8);
  c.k = below(6 * t.columns);
  c.d = 1 + below(t.d);
  if (below(2)) c.d = (c.d + 7) / 8 * 8;
  c.splits = static_cast<int32_t>(1 + below(4));
  if (c.variant == Variant::kMixed) c.columns = Columns::kScores;
  if (c.variant == Variant::kStatistics) c.columns = static_cast<Columns>(below(3));
  c.is_union = c.columns != Columns::kQueue && below(2);
  c.lambda_per_row = below(2);
  if (below(3) == 0) c.lambda_low = -2.0f, c.lambda_high = 3.0f;
  c.sums = below(4) != 0;
  c.mixed_statistics = below(4) != 0;
  c.unmixed_statistics = below(4) != 0;
  c.padding = below(2) ? 0 : below(2) ? 8 : below(20);
  c.misaligned = below(4) == 0;
  c.temperature = one_of(0.05f, 0.2f, 1.0f);
  c.growth = one_of(1.0f, 6.0f, 0.1f);
  c.size = one_of(0.3f, 1.0f);
  c.seed = random();
  return c;
}

}  // namespace main_pass
