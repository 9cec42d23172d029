// Losses: the grid of options, sizes that reach several chunks and row blocks, random cases, values that are not
// finite.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "bits/cases.h"
#include "bits/digest.h"
#include "support/option_grid.h"
#include "support/random_case.h"
#include "support/shards.h"

namespace bits {
namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

void add(Line& line, const std::string& of, const Statistics& s) {
  line.add(of + "pos", s.pos);
  line.add(of + "neg_count", s.neg_count);
  line.add(of + "neg_mean", s.neg_mean);
  line.add(of + "neg_variance", s.neg_variance);
  line.add(of + "neg_min", s.neg_min);
  line.add(of + "neg_max", s.neg_max);
  line.add(of + "neg_log_mean_exp", s.neg_log_mean_exp);
  line.add(of + "n_greater", s.n_greater);
  line.add(of + "n_greater_equal", s.n_greater_equal);
  line.add(of + "entropy", s.entropy);
  line.add(of + "dq_norm", s.dq_norm);
}

void add(Line& line, const std::string& of, const Outputs& out) {
  line.add(of + "loss", out.loss);
  line.add(of + "dq", out.dq);
  line.add(of + "dk", out.dk);
  line.add(of + "dtemperature_rows", out.dtemperature_rows);
  line.add(of + "dtemperature", out.dtemperature);
  add(line, of + "mixed.", out.mixed);
  add(line, of + "unmixed.", out.unmixed);
}

// The arrays of a partial: what lies between them is nobody's.
void add(Line& line, const std::string& of, const Bytes& partial, const fnce_layout& layout, int64_t n, int64_t d) {
  const auto array = [&]<class T>(const char* name, uint64_t offset, int64_t count, T) {
    if (offset == 0) return;
    std::vector<T> values(static_cast<size_t>(count));
    std::memcpy(values.data(), partial.data() + offset, values.size() * sizeof(T));
    line.add(of + name, values);
  };
  array("m", layout.m, n, 0.0f);
  array("l", layout.l, n, 0.0f);
  array("o", layout.o, n * d, 0.0f);
  for (int set = 0; set < 2; ++set) {
    array("count", layout.count[set], n, int64_t{0});
    array("mean", layout.mean[set], n, 0.0f);
    array("m2", layout.m2[set], n, 0.0f);
    array("min", layout.min[set], n, 0.0f);
    array("max", layout.max[set], n, 0.0f);
    array("n_greater", layout.n_greater[set], n, int64_t{0});
    array("n_greater_equal", layout.n_greater_equal[set], n, int64_t{0});
  }
  array("unmixed_m", layout.unmixed_m, n, 0.0f);
  array("unmixed_l", layout.unmixed_l, n, 0.0f);
}

// Two shards where the header allows them; a case that is a shard itself, or is given its permutation, stays whole.
std::vector<int64_t> shards_of(const fnce_problem& p) {
  const int64_t grain = p.lambda_neg == FNCE_LAMBDA_NONE ? 1 : p.perm_block;
  if (p.permutation_source == FNCE_GIVEN || grain == 0 || p.k <= grain) return {p.k};
  const int64_t first = std::max(grain, p.k / 2 / grain * grain);
  return {first, p.k - first};
}

void add_steps(Line& line, const Case& c) {
  const fnce_problem& p = c.problem;
  const bool two = p.reduction == FNCE_REDUCTION_NONE && p.n > 1;
  const std::vector<int64_t> rows = two ? std::vector<int64_t>{p.n / 2, p.n - p.n / 2} : std::vector<int64_t>{p.n};
  const StepResults steps = run_steps(c, rows, shards_of(p), Reduce::kMerge);
  line.add("anchor", steps.anchor);
  line.add("anchor.pos", steps.pos);
  line.add("anchor.unmixed_pos", steps.unmixed_pos);
  for (size_t i = 0; i < steps.partials.size(); ++i)
    add(line, "partial" + std::to_string(i) + ".", steps.partials[i], steps.layout, p.n, p.d);
  add(line, "merged.", steps.merged, steps.layout, p.n, p.d);
  add(line, "finish.", steps.outputs);
}

void add_draws(Line& line, const Case& c) {
  if (c.problem.lambda_pos_source == FNCE_SAMPLED) line.add("lambda_pos", lambda_pos_of(c));
  if (c.problem.lambda_neg_source == FNCE_SAMPLED) line.add("lambda_neg", lambda_neg_of(c));
  const std::vector<int32_t> permutation = permutation_of(c);
  line.add("permutation", std::vector<int64_t>(permutation.begin(), permutation.end()));
}

std::string digests_of(const Case& c, bool every_call) {
  Line line;
  add(line, "", run_loss(c));
  if (!every_call) return line.text();
  add(line, "scores.", run_scores(c));
  if (c.problem.column_offset == 0 && c.problem.k_global <= c.problem.k) add_steps(line, c);
  add_draws(line, c);
  return line.text();
}

void grid_cases(const Report& report) {
  for (size_t i = 0; i < option_grid().rows.size(); ++i) {
    const Case c = grid_case(i);
    report(c.label, [&] { return digests_of(c, true); });
  }
}

// The ways through the pass: rows as they are, scores mixed, the union, rows mixed while they are packed.
struct Way {
  const char* name;
  int32_t granularity, columns;
  bool renormalize;
};
constexpr Way kWays[] = {{"queue", FNCE_LAMBDA_NONE, FNCE_COLUMNS_QUEUE, false},
                         {"scores mixed", FNCE_LAMBDA_ROW, FNCE_COLUMNS_MIXED, false},
                         {"union", FNCE_LAMBDA_CALL, FNCE_COLUMNS_UNION, false},
                         {"rows mixed", FNCE_LAMBDA_ELEMENT, FNCE_COLUMNS_MIXED, false},
                         {"union of unit rows", FNCE_LAMBDA_DIMENSION, FNCE_COLUMNS_UNION, true}};

Case way_case(const Way& way, int32_t type, int64_t n, int64_t k, int64_t d, uint64_t seed) {
  Case c = make_case(FNCE_PRESET_MOCO, n, k, d);
  set_types(c, type, type, type);
  fnce_problem& p = c.problem;
  p.lambda_pos = p.lambda_neg = way.granularity;
  p.columns = way.columns;
  p.renormalize_pos = p.renormalize_neg = way.renormalize;
  p.reduction = FNCE_REDUCTION_NONE;
  p.scores = kBoth;
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

// Sizes no grid of options can have: many chunks and row blocks of the CPU, splits of a GPU, each with tails.
struct Size {
  int64_t n, k, d;
};
constexpr Size kManyTiles[] = {{256, 4096, 128}, {1, 70001, 16},  {33, 20011, 64},  {65, 6007, 100},
                               {1100, 1500, 20}, {2049, 500, 33}, {130, 1000, 1030}};
constexpr Size kEmulated[] = {{1, 5003, 64}, {65, 257, 20}, {130, 100, 33}, {17, 300, 72}, {3, 129, 1030}};

void size_cases(const Report& report) {
  std::vector<Size> sizes(std::begin(kManyTiles), std::end(kManyTiles));
  if (device().emulated()) sizes.assign(std::begin(kEmulated), std::end(kEmulated));
  uint64_t seed = 80000;
  for (const Size& size : sizes)
    for (const Way& way : kWays)
      for (const int32_t type : {FNCE_FLOAT32, FNCE_BFLOAT16}) {
        const Case c = way_case(way, type, size.n, size.k, size.d, ++seed);
        report("size " + std::to_string(seed) + ", " + way.name + ": " + describe(c),
               [&] { return digests_of(c, false); });
      }
}

void random_cases(const Report& report) {
  const auto count = static_cast<uint64_t>(affordable_repeats(150, 30));
  for (uint64_t seed = 90000; seed < 90000 + count; ++seed) {
    const Case c = random_case(seed);
    report(c.label, [&] { return digests_of(c, true); });
  }
}

// One value that is not finite, in every input that may have one.
void not_finite_cases(const Report& report) {
  constexpr float kPoisons[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  struct Target {
    const char* name;
    std::vector<float> Arrays::*array;
  };
  constexpr Target kTargets[] = {{"x_q", &Arrays::x_q},
                                 {"x_k", &Arrays::x_k},
                                 {"queue", &Arrays::queue},
                                 {"weight", &Arrays::weight},
                                 {"lambda_pos", &Arrays::lambda_pos},
                                 {"lambda_neg", &Arrays::lambda_neg}};
  uint64_t seed = 95000;
  for (const Way& way : kWays)
    for (const Target& target : kTargets)
      for (const float poison : kPoisons) {
        Case c = way_case(way, FNCE_FLOAT32, 19, 75, 13, ++seed);
        Random random(seed);
        c.arrays.weight.assign(19, 0.5f);
        if (way.granularity != FNCE_LAMBDA_NONE) {
          c.problem.lambda_pos_source = c.problem.lambda_neg_source = FNCE_GIVEN;
          fill_inputs(c, random);
        }
        std::vector<float>& array = c.arrays.*target.array;
        if (array.empty()) continue;
        array[static_cast<size_t>(random.below(static_cast<int64_t>(array.size())))] = poison;
        report("not finite " + std::to_string(seed) + ", " + way.name + ", " + target.name + " " +
                   std::to_string(poison) + ": " + describe(c),
               [&] { return digests_of(c, true); });
      }
}

}  // namespace

void loss_cases(const Report& report) {
  grid_cases(report);
  size_cases(report);
  random_cases(report);
  not_finite_cases(report);
}

}  // namespace bits
