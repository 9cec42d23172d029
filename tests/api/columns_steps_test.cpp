// Columns beyond the queue in steps: batch columns and queue in the hands of several processes, the gradient of each
// process's own batch columns from the anchors and log-sum-exps of all rows.
#include <bit>
#include <cmath>
#include <vector>

#include "support/beyond.h"
#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"
#include "support/shards.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

Case sharded(int32_t preset, uint64_t seed, const Beyond& options) {
  Case c = beyond_case({21, 160, 50, 24}, seed, {options.ids, options.bias, false, options.decoupled}, preset);
  c.problem.perm_block = 32;
  c.problem.margin_mask = options.margin;
  c.problem.scores = kBoth;
  c.problem.row_offset = 100;
  c.want.dtemperature = false;
  fill_beyond(c, seed);
  return c;
}

}  // namespace

TEST_CASE("columns in steps: shards of rows, queue and batch equal the whole problem") {
  const int32_t preset = GENERATE(values<int32_t>({FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}));
  for (unsigned bits = 0; bits < 16; ++bits) {
    // Half of them, on an emulated device, have every set of three options.
    if (device().emulated() && std::popcount(bits) % 2 != 0) continue;
    const Beyond options{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
    const Case whole = sharded(preset, 4000 + uint64_t{bits}, options);
    INFO(describe(whole) << describe_columns(whole));
    const Truth truth(oracle_inputs(whole));
    for (const std::vector<int64_t>& columns : std::vector<std::vector<int64_t>>{{160}, {96, 64}, {0, 32, 128}})
      for (const std::vector<int64_t>& rows : std::vector<std::vector<int64_t>>{{21}, {10, 11}, {1, 16, 4}})
        FNCE_CHECK_VERDICT(compare_all(whole, truth, run_in_steps(whole, rows, columns, Reduce::kMerge)));
    CHECK(same_bits(run_in_steps(whole, {21}, {96, 64}, Reduce::kMerge),
                    run_in_steps(whole, {21}, {96, 64}, Reduce::kMergeInPlace)));
    // One process in steps has the bits of one call: dx_c from given anchors is that from the features.
    CHECK(same_bits(run_loss(whole), run_in_steps(whole, {21}, {160}, Reduce::kMerge)));
  }
}

TEST_CASE("columns in steps: batch columns alone, in two processes and in one") {
  for (const bool margin : {false, true}) {
    Case c = beyond_case({33, 0, 70, 20}, 4100, {true, false, margin, false});
    c.want.dtemperature = false;
    c.problem.scores = kBoth;
    const Truth truth(oracle_inputs(c));
    FNCE_CHECK_VERDICT(compare_all(c, truth, run_in_steps(c, {20, 13}, {0, 0}, Reduce::kMerge)));
    CHECK(same_bits(run_loss(c), run_in_steps(c, {33}, {0}, Reduce::kMerge)));
  }
}

TEST_CASE("columns in steps: a row whose columns are all in one process") {
  Case c = beyond_case({20, 96, 60, 16}, 4200, {true, false, false, true});
  c.problem.perm_block = 32;
  c.problem.scores = kBoth;
  c.want.dtemperature = false;
  for (size_t i = 0; i < 20; ++i) c.arrays.query_ids[i] = static_cast<int64_t>(i % 4);
  // The first process (64 rows of the queue, 30 batch columns) has nothing for id 1, the second nothing for id 2.
  for (size_t j = 0; j < 96; ++j) c.arrays.column_ids[j] = j < 64 ? 1 : 2;
  for (size_t j = 0; j < 60; ++j) c.arrays.batch_ids[j] = j < 30 ? 1 : 2;
  for (auto* ids : {&c.arrays.column_ids, &c.arrays.batch_ids})
    for (size_t j = 0; j < ids->size(); j += 2) (*ids)[j] = FNCE_NO_COLUMN;
  const Truth truth(oracle_inputs(c));
  FNCE_CHECK_VERDICT(compare_all(c, truth, run_loss(c)));
  for (const Reduce reduce : {Reduce::kMerge, Reduce::kMergeInPlace})
    FNCE_CHECK_VERDICT(compare_all(c, truth, run_in_steps(c, {10, 10}, {64, 32}, reduce)));
}

TEST_CASE("columns in steps: element types") {
  for (const int32_t type : kTypes) {
    Case c = sharded(FNCE_PRESET_MOCO, 4300, {true, true, false, false});
    set_types(c, type, type, type);
    fill_beyond(c, 4300);
    INFO(describe(c) << describe_columns(c));
    FNCE_CHECK_VERDICT(compare_all(c, Truth(oracle_inputs(c)), run_in_steps(c, {10, 11}, {96, 64}, Reduce::kMerge)));
    CHECK(same_bits(run_loss(c), run_in_steps(c, {21}, {160}, Reduce::kMerge)));
  }
}
