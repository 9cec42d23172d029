// The parameters of the grid, what goes together, and a case from a row.
#include "support/option_grid.h"

#include <string>

#include "support/random_case.h"

namespace support {
namespace {

// Indices into grid_parameters(Grid::kBeyond).
enum Place {
  kN,
  kK,
  kD,
  kQueue,
  kFeature,
  kGradient,
  kPrecision,
  kNormalize,
  kPos,
  kNeg,
  kPosSource,
  kNegSource,
  kPermutation,
  kBlock,
  kRenormalizePos,
  kRenormalizeNeg,
  kColumns,
  kAnchor,
  kReduction,
  kScores,
  kPointers,
  kSkew,
  kWeight,
  kWant,
  kBatch,
  kIds,
  kBias,
  kMargin,
  kForm,
  kOutputs
};

constexpr int64_t kMostProducts = 400'000;

// The value at a place, or `open`.
int64_t value(const Choice& row, Place place, int64_t open) {
  const bool chosen = place < static_cast<Place>(row.size()) && row[place] != kOpen;
  return chosen ? grid_parameters(Grid::kBeyond)[place].values[static_cast<size_t>(row[place])] : open;
}

Case case_of(const Choice& row, uint64_t seed) {
  const auto at = [&](Place place) { return static_cast<int32_t>(value(row, place, 0)); };
  Case c = make_case(FNCE_PRESET_MOCO, at(kN), at(kK), at(kD));
  fnce_problem& p = c.problem;
  set_types(c, at(kFeature), at(kQueue), at(kGradient));
  p.precision = at(kPrecision);
  p.normalize = at(kNormalize);
  p.lambda_pos = at(kPos);
  p.lambda_neg = at(kNeg);
  p.lambda_pos_source = at(kPosSource);
  p.lambda_neg_source = at(kNegSource);
  p.permutation_source = at(kPermutation);
  p.perm_block = at(kBlock);
  p.renormalize_pos = at(kRenormalizePos);
  p.renormalize_neg = at(kRenormalizeNeg);
  p.columns = at(kColumns);
  p.anchor = at(kAnchor);
  p.reduction = at(kReduction);
  p.scores = at(kScores);
  c.numbers_by_pointer = at(kPointers) != 0;
  c.skew = static_cast<size_t>(at(kSkew));
  if (at(kWant) == 1) c.want = {true, false, false, false, false};
  if (at(kWant) == 2) c.want = {false, true, false, false, false};
  c.numbers.seed = seed;
  c.numbers.offset = 4 * seed;
  Random random(seed);
  fill_inputs(c, random);
  if (at(kWeight) != 0) {
    c.arrays.weight.resize(static_cast<size_t>(p.n));
    for (float& weight : c.arrays.weight)
      weight = random.chance(0.1) ? 0.0f : static_cast<float>(random.uniform(0.1, 3));
  }
  c.label = "case " + std::to_string(seed) + ": " + describe(c);
  if (static_cast<Place>(row.size()) <= kBatch) return c;
  p.batch_columns = at(kBatch);
  p.id_mask = at(kIds);
  p.column_bias = at(kBias);
  p.margin_mask = at(kMargin);
  p.form = at(kForm);
  c.want.log_sum_exp = at(kOutputs) != 0;
  c.want.dx_c = at(kOutputs) == 2;
  fill_columns(c, random);
  c.label += describe_columns(c);
  return c;
}

}  // namespace

const std::vector<Parameter>& grid_parameters(Grid grid) {
  static const std::vector<int64_t> flag{0, 1}, types{FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16},
      granularities{0, 1, 2, 3, 4};
  static const std::vector<Parameter> all{{"n", {1, 7, 31, 33, 64, 65, 129}},
                                          {"k", {0, 1, 5, 16, 17, 31, 64, 65, 130}},
                                          {"d", {1, 8, 13, 64, 65, 128, 129, 200, 257, 513}},
                                          {"queue", types},
                                          {"feature", types},
                                          {"gradient", types},
                                          {"precision", flag},
                                          {"normalize", flag},
                                          {"lambda_pos", granularities},
                                          {"lambda_neg", granularities},
                                          {"lambda_pos_source", flag},
                                          {"lambda_neg_source", flag},
                                          {"permutation_source", flag},
                                          {"perm_block", {0, 16, 48}},
                                          {"renormalize_pos", flag},
                                          {"renormalize_neg", flag},
                                          {"columns", {0, 1, 2}},
                                          {"anchor", flag},
                                          {"reduction", {0, 1, 2}},
                                          {"scores", {0, 1, 2, 3}},
                                          {"numbers_by_pointer", flag},
                                          {"skew", {0, 4, 12, 16}},
                                          {"weight", flag},
                                          {"want", {0, 1, 2}}};  // all, the loss alone, dq alone
  static const std::vector<Parameter> beyond = [] {
    std::vector<Parameter> more = all;
    more.insert(more.end(), {{"batch", {0, 1, 16, 97}},
                             {"ids", flag},
                             {"bias", flag},
                             {"margin", flag},
                             {"form", flag},
                             {"outputs", {0, 1, 2}}});  // none, the log-sum-exps, these and dx_c
    return more;
  }();
  return grid == Grid::kQueue ? all : beyond;
}

bool grid_allows(const Choice& row) {
  const int64_t pos = value(row, kPos, -1), neg = value(row, kNeg, -1);
  const auto set = [&](Place place) { return value(row, place, 0) != 0; };
  if (pos == FNCE_LAMBDA_NONE && (set(kPosSource) || set(kRenormalizePos))) return false;
  if (neg == FNCE_LAMBDA_NONE && (set(kNegSource) || set(kPermutation) || set(kRenormalizeNeg))) return false;
  if (neg == FNCE_LAMBDA_NONE && value(row, kColumns, 0) == FNCE_COLUMNS_UNION) return false;
  if (neg > FNCE_LAMBDA_NONE && value(row, kColumns, 1) == FNCE_COLUMNS_QUEUE) return false;
  if (set(kPermutation) && set(kBlock)) return false;
  return value(row, kN, 1) * (value(row, kK, 0) + value(row, kBatch, 0)) * value(row, kD, 1) <= kMostProducts;
}

const CoveringArray& option_grid(Grid grid) {
  const auto cover = [](Grid of) { return cover_pairs(grid_parameters(of), grid_allows, 1); };
  if (grid == Grid::kQueue) {
    static const CoveringArray array = cover(Grid::kQueue);
    return array;
  }
  static const CoveringArray array = cover(Grid::kBeyond);
  return array;
}

Case grid_case(size_t index, Grid grid) {
  return case_of(option_grid(grid).rows[index], (grid == Grid::kQueue ? 70000 : 80000) + index);
}

}  // namespace support
