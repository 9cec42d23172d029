// Columns beyond the queue, equations (13)-(16), against the oracle: batch columns, ids, biases, margins, the decoupled
// form, at the edges of tiles, in all element types.
#include <cmath>
#include <limits>
#include <vector>

#include "support/beyond.h"
#include "support/check.h"
#include "support/compare.h"
#include "support/margin.h"
#include "support/option_grid.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

// Every set of options by its bits.
Beyond options_of(int bits) { return {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0}; }

// The loss, its statistics and those of fnce_scores.
void check(Case& c) {
  INFO(describe(c) << describe_columns(c));
  const Truth truth(oracle_inputs(c));
  FNCE_CHECK_VERDICT(compare_all(c, truth, run_loss(c)));
  FNCE_CHECK_VERDICT(compare_statistics(truth, ScoreSet::kPlain, run_scores(c)));
}

}  // namespace

TEST_CASE("columns: the worked example") {
  // Two queries against each other's keys and one of a queue: every number by hand.
  Case c = make_case(FNCE_PRESET_MOCO, 2, 1, 2);
  c.problem.batch_columns = 2;
  c.problem.id_mask = 1;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.numbers.temperature = 1;
  c.want.log_sum_exp = c.want.dx_c = true;
  c.arrays.x_q = {2, 0, 0, 3};
  c.arrays.x_k = {1, 0, 0, 1};
  c.arrays.queue = {0, -1};
  c.arrays.x_c = {5, 0, 0, 0.5f};  // the keys, at other lengths
  c.arrays.query_ids = {7, 8};
  c.arrays.batch_ids = {7, 8};
  c.arrays.column_ids = {FNCE_NO_COLUMN};
  // Row 0 is left with column 1 of the batch, score 0, beside its positive, score 1; row 1 likewise with column 0.
  const double sum = std::exp(1.0) + 1, p = 1 / sum;
  const Outputs out = run_loss(c);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(std::abs(double(out.loss[i]) - (std::log(sum) - 1)) < 1e-6);
    CHECK(std::abs(double(out.log_sum_exp[i]) - std::log(sum)) < 1e-6);
  }
  // Row 1 sends p a_1 = (0, p) to column 0 = (5, 0): orthogonal to it, so it is divided by its length alone.
  const std::vector<double> dx_c{0, p / 5, p / 0.5, 0};
  for (size_t i = 0; i < 4; ++i) CHECK(std::abs(double(out.dx_c[i]) - dx_c[i]) < 1e-6);
  c.problem.form = FNCE_FORM_DECOUPLED;
  const Outputs decoupled = run_loss(c);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(std::abs(double(decoupled.loss[i]) + 1) < 1e-6);  // log(exp(0)) - 1
    CHECK(std::abs(double(decoupled.log_sum_exp[i])) < 1e-6);
  }
  CHECK(std::abs(double(decoupled.dx_c[1]) - 0.2) < 1e-6);
}

TEST_CASE("columns: every set of options, with a queue, without one, and the queue alone") {
  for (int bits = 0; bits < 16; ++bits) {
    for (const Shape& shape : {Shape{19, 0, 37, 13}, Shape{19, 75, 37, 24}, Shape{19, 75, 0, 24}}) {
      Case c = beyond_case(shape, 900 + static_cast<uint64_t>(bits), options_of(bits));
      c.problem.scores = kBoth;
      check(c);
    }
  }
}

TEST_CASE("columns: every set of options where negatives are mixed") {
  uint64_t seed = 1000;
  for (const int32_t granularity : {FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW, FNCE_LAMBDA_DIMENSION, FNCE_LAMBDA_ELEMENT}) {
    for (const int32_t columns : {FNCE_COLUMNS_MIXED, FNCE_COLUMNS_UNION}) {
      for (int bits = 0; bits < 16; ++bits) {
        Case c = beyond_case({17, 131, bits % 3 == 0 ? 0 : 29, 12}, ++seed, options_of(bits & ~4), FNCE_PRESET_FT);
        c.problem.lambda_pos = c.problem.lambda_neg = granularity;
        c.problem.columns = columns;
        c.problem.margin_mask = (bits & 4) != 0;
        c.problem.renormalize_neg = seed % 5 == 0;
        c.problem.permutation_source = seed % 4 == 0 ? FNCE_GIVEN : FNCE_SAMPLED;
        c.problem.anchor = static_cast<int32_t>(seed % 2);
        c.problem.scores = kBoth;
        fill_beyond(c, seed);
        check(c);
      }
    }
  }
}

TEST_CASE("columns: the edges of tiles and blocks") {
  uint64_t seed = 1100;
  for (const int64_t n : {1, 15, 16, 17, 47, 48, 49}) {
    for (const int64_t c : {1, 15, 16, 95, 96, 97, 200}) {
      ++seed;
      Case one = beyond_case({n, 50 * (c % 3), c, 20}, seed, {true, seed % 2 == 0, false, false});
      one.problem.scores = kBoth;
      check(one);
    }
  }
  for (const int64_t n : {1024, 1025})
    for (const int64_t c : {1, 97}) {
      Case one = beyond_case({n, 33, c, 9}, ++seed, {true, true, false, false});
      check(one);
    }
  for (const int64_t c : {1024, 1025, 2100}) {
    Case one = beyond_case({5, 3, c, 9}, ++seed, {true, false, false, false});
    check(one);
  }
  for (const int64_t d : {1, 2, 7, 8, 15, 16, 17, 64, 100, 300, 1025}) {
    Case one = beyond_case({18, 21, 35, d}, ++seed, {true, true, false, false});
    one.problem.scores = kBoth;
    check(one);
  }
}

TEST_CASE("columns: every element type, skewed arrays, features as they are") {
  uint64_t seed = 1200;
  for (const int32_t feature : kTypes)
    for (const int32_t queue : kTypes)
      for (const int32_t gradient : kTypes)
        for (const bool mixes : {false, true}) {
          const Beyond options = options_of(static_cast<int>(++seed % 16) & ~4);
          Case c = beyond_case({33, 70, 45, 27}, seed, options, mixes ? FNCE_PRESET_FT : FNCE_PRESET_MOCO);
          set_types(c, feature, queue, gradient);
          c.problem.scores = kBoth;
          c.problem.normalize = seed % 3 != 0;
          c.problem.margin_mask = seed % 5 == 0;
          if (mixes && seed % 4 == 0) c.problem.lambda_neg = FNCE_LAMBDA_ELEMENT;
          c.skew = 4 * (seed % 16);
          Random random(seed);
          fill_inputs(c, random);
          fill_columns(c, random);
          if (c.problem.margin_mask) choose_margin(c);
          check(c);
        }
}

TEST_CASE("columns: random cases over every other option") {
  int with_margin = 0;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    Case c = random_case(seed + 300);
    add_columns(c, seed);
    if (c.problem.margin_mask) with_margin += choose_margin(c);
    INFO(c.label);
    const Truth truth(oracle_inputs(c));
    FNCE_CHECK_VERDICT(compare_all(c, truth, run_loss(c)));
    FNCE_CHECK_VERDICT(compare_statistics(truth, ScoreSet::kPlain, run_scores(c)));
  }
  CHECK(with_margin >= 20);
}

TEST_CASE("columns: what is left out is as if it were not there") {
  // Odd columns carry the id of all queries, in another case by a bias of -inf; the smaller problem has the even ones.
  for (const bool by_bias : {false, true}) {
    Case c = beyond_case({21, 80, 50, 16}, 1300, {!by_bias, by_bias, false, false});
    Case kept = c;
    kept.problem.k = 40;
    kept.problem.batch_columns = 25;
    kept.problem.id_mask = kept.problem.column_bias = 0;
    for (auto* ids : {&c.arrays.query_ids, &c.arrays.column_ids, &c.arrays.batch_ids})
      for (size_t j = 0; j < ids->size(); ++j) (*ids)[j] = ids == &c.arrays.query_ids || j % 2 == 1 ? 5 : 6;
    for (auto* bias : {&c.arrays.column_bias, &c.arrays.batch_bias})
      for (size_t j = 0; j < bias->size(); ++j)
        (*bias)[j] = j % 2 == 1 ? -std::numeric_limits<float>::infinity() : 0.0f;
    for (auto* ids : {&kept.arrays.query_ids, &kept.arrays.column_ids, &kept.arrays.batch_ids}) ids->clear();
    for (auto* bias : {&kept.arrays.column_bias, &kept.arrays.batch_bias}) bias->clear();
    for (auto* rows : {&kept.arrays.queue, &kept.arrays.x_c}) {
      std::vector<float> even;
      for (size_t i = 0; i < rows->size(); ++i)
        if (i / 16 % 2 == 0) even.push_back((*rows)[i]);
      *rows = even;
    }
    const Truth truth(oracle_inputs(kept));
    Outputs out = run_loss(c);
    std::vector<float> dx_c;
    for (size_t i = 0; i < out.dx_c.size(); ++i) {
      if (i / 16 % 2 == 0)
        dx_c.push_back(out.dx_c[i]);
      else
        CHECK(out.dx_c[i] == 0.0f);
    }
    out.dx_c = dx_c;
    FNCE_CHECK_VERDICT(compare_all(kept, truth, out));
    CHECK(gradient_has_signal(truth));
  }
}

TEST_CASE("columns: a batch of unit rows is a queue") {
  Case queue = beyond_case({33, 120, 0, 40}, 1400, {true, true, true, false});
  Case batch = queue;
  std::swap(batch.problem.k, batch.problem.batch_columns);
  std::swap(batch.arrays.queue, batch.arrays.x_c);
  std::swap(batch.arrays.column_ids, batch.arrays.batch_ids);
  std::swap(batch.arrays.column_bias, batch.arrays.batch_bias);
  FNCE_CHECK_VERDICT(compare_all(queue, Truth(oracle_inputs(queue)), run_loss(batch)));
}

TEST_CASE("columns: every pair of options that can occur, these and the others, in about a hundred cases") {
  const CoveringArray& array = option_grid(Grid::kBeyond);
  CHECK(array.rows.size() <= 150);
  CHECK(array.impossible < 30);
  for (size_t i = 0; i < array.rows.size(); ++i) {
    CHECK(grid_allows(array.rows[i]));
    Case c = grid_case(i, Grid::kBeyond);
    if (c.problem.margin_mask) choose_margin(c);
    INFO(c.label);
    FNCE_CHECK_VERDICT(check_case(c));
  }
}
