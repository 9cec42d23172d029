// fnce_prep, fnce_partial, fnce_merge, fnce_finish: the loss in steps, with the negatives in 1, 2 or 3 shards and the
// rows in one or several parts, equals the whole problem's truth, with the whole problem's draws.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"
#include "support/shards.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

Case sharded_case(int32_t preset, uint64_t seed, int32_t scores) {
  Case c = make_case(preset, 21, 160, 24);
  c.problem.perm_block = 32;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.problem.scores = scores;
  c.problem.row_offset = 100;
  c.numbers.seed = seed;
  c.want.dtemperature = false;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

const std::vector<std::vector<int64_t>> kColumnSplits{{160}, {96, 64}, {64, 32, 64}, {160, 0}, {0, 32, 128}};
const std::vector<std::vector<int64_t>> kRowSplits{{21}, {10, 11}, {1, 16, 4}};

}  // namespace

TEST_CASE("partial: shards of rows and columns equal the whole problem") {
  const int32_t preset = GENERATE(values<int32_t>({FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}));
  const int32_t scores = GENERATE(values<int32_t>({FNCE_SCORES_NONE, FNCE_SCORES_MIXED, kBoth}));
  const Case whole = sharded_case(preset, 31, scores);
  const Truth truth(oracle_inputs(whole));
  REQUIRE(gradient_has_signal(truth));
  FNCE_CHECK_VERDICT(compare_all(whole, truth, run_loss(whole)));
  for (const auto& columns : kColumnSplits) {
    for (const auto& rows : kRowSplits) {
      INFO(describe(whole) << ", " << columns.size() << " shards, " << rows.size() << " row parts");
      FNCE_CHECK_VERDICT(compare_all(whole, truth, run_in_steps(whole, rows, columns, Reduce::kMerge)));
    }
    const Outputs merged = run_in_steps(whole, {21}, columns, Reduce::kMerge);
    CHECK(same_bits(merged, run_in_steps(whole, {21}, columns, Reduce::kMergeInPlace)));
    if (scores == FNCE_SCORES_NONE)
      FNCE_CHECK_VERDICT(compare_all(whole, truth, run_in_steps(whole, {21}, columns, Reduce::kMaxAndSum)));
  }
}

TEST_CASE("partial: every granularity, column set, anchor and renormalisation survives sharding") {
  uint64_t seed = 400;
  for (int32_t pos = FNCE_LAMBDA_NONE; pos <= FNCE_LAMBDA_ELEMENT; ++pos) {
    for (int32_t neg = FNCE_LAMBDA_NONE; neg <= FNCE_LAMBDA_ELEMENT; ++neg) {
      Random random(++seed);
      Case whole = sharded_case(FNCE_PRESET_MOCO, seed, static_cast<int32_t>(random.below(4)));
      whole.problem.lambda_pos = pos;
      whole.problem.lambda_neg = neg;
      whole.problem.columns = neg == FNCE_LAMBDA_NONE ? FNCE_COLUMNS_QUEUE
                              : random.chance(0.5)    ? FNCE_COLUMNS_UNION
                                                      : FNCE_COLUMNS_MIXED;
      whole.problem.anchor = static_cast<int32_t>(random.below(2));
      whole.problem.renormalize_pos = pos != FNCE_LAMBDA_NONE && random.chance(0.5);
      whole.problem.renormalize_neg = neg != FNCE_LAMBDA_NONE && random.chance(0.5);
      whole.problem.lambda_pos_source = pos != FNCE_LAMBDA_NONE && random.chance(0.3) ? FNCE_GIVEN : FNCE_SAMPLED;
      whole.problem.lambda_neg_source = neg != FNCE_LAMBDA_NONE && random.chance(0.3) ? FNCE_GIVEN : FNCE_SAMPLED;
      fill_inputs(whole, random);
      INFO(describe(whole));
      const Truth truth(oracle_inputs(whole));
      FNCE_CHECK_VERDICT(compare_all(whole, truth, run_in_steps(whole, {8, 13}, {64, 96}, Reduce::kMerge)));
    }
  }
}

TEST_CASE("partial: the last shard may end in a block that is not full") {
  for (const int32_t preset : {FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    for (const int64_t k : {150, 129, 65, 3}) {
      Case whole = make_case(preset, 10, k, 24);
      whole.problem.perm_block = 64;
      whole.problem.reduction = FNCE_REDUCTION_NONE;
      whole.problem.scores = kBoth;
      whole.want.dtemperature = false;
      Random random(38);
      fill_inputs(whole, random);
      std::vector<int64_t> shards;
      for (int64_t first = 0; first < k; first += 64) shards.push_back(std::min<int64_t>(64, k - first));
      INFO(describe(whole));
      FNCE_CHECK_VERDICT(
          compare_all(whole, Truth(oracle_inputs(whole)), run_in_steps(whole, {10}, shards, Reduce::kMerge)));
    }
  }
}

TEST_CASE("partial: one process in steps has the bits of fnce_loss") {
  const int32_t preset = GENERATE(values<int32_t>({FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}));
  Case c = sharded_case(preset, 33, kBoth);
  c.want.dtemperature = true;
  c.problem.reduction = FNCE_REDUCTION_MEAN;
  c.problem.perm_block = 0;
  CHECK(same_bits(run_loss(c), run_in_steps(c, {21}, {160}, Reduce::kMerge)));
}

TEST_CASE("partial: anchors are equation (6), scores of the positives beside them") {
  for (const int32_t anchor : {FNCE_ANCHOR_MIXED, FNCE_ANCHOR_QUERY}) {
    Case c = sharded_case(FNCE_PRESET_FT, 34, kBoth);
    c.problem.anchor = anchor;
    const Truth truth(oracle_inputs(c));
    const Plan plan(c.problem);
    const Call call(c);
    const Buffer<unsigned char> workspace = make_workspace(plan);
    const Buffer<float> a(21 * 24), pos(21), unmixed_pos(21);
    const fnce_anchors anchors{a.get(), pos.get(), unmixed_pos.get(), {}};
    FNCE_REQUIRE_OK(fnce_prep(plan.get(), &call.args, &anchors, workspace.get(), workspace.bytes(), device().stream()));
    const std::vector<float> actual = a.values(), actual_pos = pos.values(), actual_unmixed = unmixed_pos.values();
    Verdict verdict = compare_anchors(truth, actual);
    verdict.merge(compare_positives(truth, ScoreSet::kMixed, actual_pos));
    verdict.merge(compare_positives(truth, ScoreSet::kUnmixed, actual_unmixed));
    FNCE_CHECK_VERDICT(verdict);
    // Without statistics only the anchors need to be exported.
    c.problem.scores = FNCE_SCORES_NONE;
    const Plan bare(c.problem);
    const fnce_anchors only{a.get(), nullptr, nullptr, {}};
    FNCE_REQUIRE_OK(fnce_prep(bare.get(), &call.args, &only, workspace.get(), workspace.bytes(), device().stream()));
    CHECK(a.holds(actual));
  }
}

TEST_CASE("partial: the arrays are what the layout says") {
  const Case c = sharded_case(FNCE_PRESET_FT, 35, kBoth);
  const int64_t n = 21, d = 24;
  const Truth truth(oracle_inputs(c));
  const Plan plan(c.problem);
  const Call call(c);
  const fnce_layout layout = layout_of(plan);
  const Buffer<unsigned char> workspace = make_workspace(plan), partial(static_cast<int64_t>(layout.bytes));
  const Buffer<float> a(n * d), pos(n), unmixed_pos(n);
  const fnce_anchors anchors{a.get(), pos.get(), unmixed_pos.get(), {}};
  FNCE_REQUIRE_OK(fnce_prep(plan.get(), &call.args, &anchors, workspace.get(), workspace.bytes(), device().stream()));
  FNCE_REQUIRE_OK(fnce_partial(plan.get(), &call.args, &anchors, partial.get(), partial.bytes(), workspace.get(),
                               workspace.bytes(), device().stream()));
  const std::vector<unsigned char> bytes = partial.values();
  const auto number = [&](uint64_t offset, int64_t i) {
    float value;
    std::memcpy(&value, bytes.data() + offset + 4 * static_cast<uint64_t>(i), 4);
    return double(value);
  };
  const auto integer = [&](uint64_t offset, int64_t i) {
    int64_t value;
    std::memcpy(&value, bytes.data() + offset + 8 * static_cast<uint64_t>(i), 8);
    return value;
  };
  for (int64_t i = 0; i < n; ++i) {
    INFO("row " << i);
    CHECK(std::abs(number(layout.m, i) + std::log(number(layout.l, i)) - truth.exact.log_sum_exp[i]) < 2e-5);
    for (int64_t col = 0; col < d; ++col) {
      const double mean = truth.exact.partial_o[i * d + col] / truth.exact.partial_l[i];
      CHECK(std::abs(number(layout.o, i * d + col) / number(layout.l, i) - mean) < 1e-5);
    }
    const oracle::Scores<double>* sets[] = {&truth.exact.mixed, &truth.exact.unmixed};
    for (int set = 0; set < 2; ++set) {
      CHECK(integer(layout.count[set], i) == 160);
      CHECK(std::abs(number(layout.mean[set], i) - sets[set]->mean[i]) < 1e-6);
      CHECK(std::abs(number(layout.m2[set], i) / 159 - sets[set]->variance[i]) < 1e-6);
      CHECK(std::abs(number(layout.min[set], i) - sets[set]->min[i]) < 2e-6);
      CHECK(std::abs(number(layout.max[set], i) - sets[set]->max[i]) < 2e-6);
      CHECK(integer(layout.n_greater[set], i) == oracle::count_greater(*sets[set], i, 0));
      CHECK(integer(layout.n_greater_equal[set], i) == oracle::count_greater_equal(*sets[set], i, 0));
    }
    const double unmixed = number(layout.unmixed_m, i) + std::log(number(layout.unmixed_l, i));
    CHECK(std::abs(unmixed - std::log(160.0) - truth.exact.unmixed.log_mean_exp[i]) < 2e-5);
  }
}

TEST_CASE("partial: without columns it is the neutral element") {
  Case c = sharded_case(FNCE_PRESET_MOCO, 36, FNCE_SCORES_NONE);
  c.problem.k = 0;
  c.problem.k_global = 160;
  c.arrays.queue.clear();
  const Plan plan(c.problem);
  const Call call(c);
  const fnce_layout layout = layout_of(plan);
  const Buffer<unsigned char> workspace = make_workspace(plan), partial(static_cast<int64_t>(layout.bytes));
  const Buffer<float> a(std::vector<float>(21 * 24, 0.5f));
  const fnce_anchors anchors{a.get(), nullptr, nullptr, {}};
  FNCE_REQUIRE_OK(fnce_partial(plan.get(), &call.args, &anchors, partial.get(), partial.bytes(), workspace.get(),
                               workspace.bytes(), device().stream()));
  const std::vector<unsigned char> bytes = partial.values();
  for (size_t i = 0; i < 21; ++i) {
    float m, l;
    std::memcpy(&m, bytes.data() + layout.m + 4 * i, 4);
    std::memcpy(&l, bytes.data() + layout.l + 4 * i, 4);
    CHECK(m == -1e30f);
    CHECK(l == 0.0f);
  }
}

TEST_CASE("partial: what is not finite in one shard reaches every row, loss and statistics") {
  for (const size_t place : {size_t{3}, size_t{70}, size_t{159}}) {
    for (const float poison : {NAN, INFINITY, -INFINITY}) {
      Case c = sharded_case(FNCE_PRESET_FT, 37, kBoth);
      c.arrays.weight.assign(21, 1.0f);
      c.arrays.weight[5] = 0.0f;
      c.arrays.queue[place * 24 + 7] = poison;
      INFO("row of the queue " << place << ", " << poison);
      const Outputs out = run_in_steps(c, {10, 11}, {64, 32, 64}, Reduce::kMerge);
      FNCE_CHECK_VERDICT(compare_loss(Truth(oracle_inputs(c)), out, c.want));
      for (const Statistics* s : {&out.mixed, &out.unmixed}) {
        for (size_t i = 0; i < 21; ++i) {
          INFO("row " << i);
          CHECK_FALSE(std::isfinite(s->neg_mean[i]));
          CHECK_FALSE(std::isfinite(s->neg_variance[i]));
          CHECK_FALSE(std::isfinite(s->neg_min[i]));
          CHECK_FALSE(std::isfinite(s->neg_max[i]));
          CHECK_FALSE(std::isfinite(s->neg_log_mean_exp[i]));
        }
      }
    }
  }
}

TEST_CASE("partial: layouts are disjoint, aligned and complete") {
  for (const int32_t scores : {0, 1, 2, kBoth}) {
    for (const int64_t n : {1, 7, 64, 1000}) {
      for (const int64_t d : {1, 13, 128}) {
        Case c = make_case(FNCE_PRESET_FT, n, 100, d);
        c.problem.scores = scores;
        const fnce_layout layout = layout_of(Plan(c.problem));
        std::map<uint64_t, uint64_t> arrays;  // offset -> bytes
        const auto rows = static_cast<uint64_t>(n);
        int expected = 3;
        arrays[layout.m] = 4 * rows;
        arrays[layout.l] = 4 * rows;
        arrays[layout.o] = 4 * rows * static_cast<uint64_t>(d);
        for (int set = 0; set < 2; ++set) {
          const bool gathered = scores & (set == 0 ? FNCE_SCORES_MIXED : FNCE_SCORES_UNMIXED);
          CHECK((layout.count[set] != 0) == gathered);
          if (!gathered) continue;
          expected += 7;
          for (const uint64_t offset : {layout.count[set], layout.n_greater[set], layout.n_greater_equal[set]}) {
            arrays[offset] = 8 * rows;
            CHECK(offset % 8 == 0);
          }
          for (const uint64_t offset : {layout.mean[set], layout.m2[set], layout.min[set], layout.max[set]})
            arrays[offset] = 4 * rows;
        }
        CHECK((layout.unmixed_m != 0) == ((scores & FNCE_SCORES_UNMIXED) != 0));
        if (scores & FNCE_SCORES_UNMIXED) {
          expected += 2;
          arrays[layout.unmixed_m] = 4 * rows;
          arrays[layout.unmixed_l] = 4 * rows;
        }
        CHECK(static_cast<int>(arrays.size()) == expected);
        uint64_t end = 0;
        for (const auto& [offset, bytes] : arrays) {
          CHECK(offset % 4 == 0);
          CHECK(offset >= end);
          end = offset + bytes;
        }
        CHECK(end <= layout.bytes);
      }
    }
  }
}
