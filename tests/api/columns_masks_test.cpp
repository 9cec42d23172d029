// Columns that are left out, equation (14), to the bit: they have no influence, masks that match nothing change
// nothing, a row without columns is a row with K = 0, values that are not finite reach exactly the rows for which their
// column counts.
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "support/beyond.h"
#include "support/check.h"
#include "support/compare.h"
#include "support/margin.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
const float kInfinity = std::numeric_limits<float>::infinity();
const std::vector<float> kPoisons{std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0xff800001u), kInfinity,
                                  -kInfinity, 3e38f};

// The ways to mix, by what stands in a tile.
struct Way {
  int32_t granularity, columns;
  bool renormalize;
};
constexpr Way kWays[] = {{FNCE_LAMBDA_NONE, FNCE_COLUMNS_QUEUE, false},
                         {FNCE_LAMBDA_CALL, FNCE_COLUMNS_MIXED, false},
                         {FNCE_LAMBDA_ROW, FNCE_COLUMNS_UNION, false},
                         {FNCE_LAMBDA_ELEMENT, FNCE_COLUMNS_MIXED, true},
                         {FNCE_LAMBDA_DIMENSION, FNCE_COLUMNS_UNION, false}};

// Statistics of both kinds; the permutation is given, so that a row's partners are known.
Case way_case(const Way& way, const Shape& shape, uint64_t seed, const Beyond& options) {
  Case c = beyond_case(shape, seed, {options.ids, options.bias, false, options.decoupled});
  fnce_problem& p = c.problem;
  p.lambda_pos = p.lambda_neg = way.granularity;
  p.columns = way.columns;
  p.renormalize_neg = way.renormalize;
  p.margin_mask = options.margin;
  p.scores = kBoth;
  if (way.granularity == FNCE_LAMBDA_DIMENSION) p.permutation_source = FNCE_GIVEN;
  fill_beyond(c, seed);
  return c;
}

bool zero_row(const std::vector<float>& values, size_t row, size_t width) {
  for (size_t i = row * width; i < (row + 1) * width; ++i)
    if (values[i] != 0.0f) return false;
  return true;
}

// Row i of everything is that of a row without columns.
void check_empty_row(const Case& c, const Outputs& out, size_t i) {
  const auto d = static_cast<size_t>(c.problem.d);
  INFO("row " << i);
  CHECK(out.loss[i] == 0.0f);
  CHECK(out.dtemperature_rows[i] == 0.0f);
  CHECK((zero_row(out.dq, i, d) && zero_row(out.dk, i, d)));
  if (c.problem.form == FNCE_FORM_DECOUPLED) CHECK(out.log_sum_exp[i] == -kInfinity);
  for (const Statistics* s : {&out.mixed, &out.unmixed}) {
    CHECK((s->neg_count[i] == 0 && s->n_greater[i] == 0 && s->n_greater_equal[i] == 0));
    CHECK((s->neg_mean[i] == 0.0f && std::isnan(s->neg_variance[i])));
    CHECK((s->neg_min[i] == kInfinity && s->neg_max[i] == -kInfinity && s->neg_log_mean_exp[i] == -kInfinity));
  }
  CHECK(out.mixed.dq_norm[i] == 0.0f);
  if (!c.problem.column_bias) CHECK(out.mixed.entropy[i] == 0.0f);
}

}  // namespace

TEST_CASE("columns left out: what they hold has no influence, to the bit") {
  uint64_t seed = 2000;
  for (const Way& way : kWays) {
    for (const int32_t type : {FNCE_FLOAT32, FNCE_BFLOAT16}) {
      Case c = way_case(way, {21, 70, 40, 13}, ++seed, {true, true, false, false});
      set_types(c, type, type, FNCE_FLOAT32);
      fill_beyond(c, seed);
      // Rows of the queue and of the batch that are nobody's, by id and by bias.
      for (const size_t j : {0, 5, 31, 69}) c.arrays.column_ids[j] = FNCE_NO_COLUMN;
      for (const size_t j : {1, 39}) c.arrays.batch_ids[j] = FNCE_NO_COLUMN;
      c.arrays.column_bias[6] = c.arrays.batch_bias[7] = -kInfinity;
      // A mixed column of a row that counts and one that does not is left out as well; so a bias leaves out less.
      const bool mixes = way.granularity != FNCE_LAMBDA_NONE;
      const Outputs clean = run_loss(c);
      const Statistics clean_scores = run_scores(c);
      for (const float poison : kPoisons) {
        Case poisoned = c;
        for (const size_t j : {0, 5, 31, 69}) poisoned.arrays.queue[j * 13 + j % 13] = poison;
        for (const size_t j : {1, 7, 39}) poisoned.arrays.x_c[j * 13 + 12] = poison;
        if (!mixes) poisoned.arrays.queue[6 * 13 + 2] = poison;
        poisoned.arrays.queue = oracle::rounded(element_of(type), poisoned.arrays.queue);
        poisoned.arrays.x_c = oracle::rounded(element_of(type), poisoned.arrays.x_c);
        INFO(describe(c) << ", " << poison);
        CHECK(same_bits(clean, run_loss(poisoned)));
        CHECK(same_bits(clean_scores, run_scores(poisoned)));
      }
    }
  }
}

TEST_CASE("columns left out: a value that is not finite reaches the rows for which its column counts, and no other") {
  uint64_t seed = 2100;
  for (const Way& way : kWays) {
    for (const bool decoupled : {false, true}) {
      for (const float poison : kPoisons) {
        if (std::isfinite(poison)) continue;
        for (const bool in_batch : {false, true}) {
          Case c = way_case(way, {35, 70, 40, 13}, ++seed, {true, true, false, decoupled});
          if (seed % 2 == 0) c.arrays.upstream.assign(1, 1.5f);
          for (float& u : c.arrays.upstream) u = std::abs(u) + 0.25f;  // 0 * NaN is left open
          c.arrays.query_ids.assign(35, 4);
          for (const size_t i : {3, 16, 34}) c.arrays.query_ids[i] = 5;
          // Row 9 of either kind is a negative of three queries alone.
          (in_batch ? c.arrays.batch_ids : c.arrays.column_ids)[9] = 4;
          (in_batch ? c.arrays.batch_bias : c.arrays.column_bias)[9] = 0.5f;
          (in_batch ? c.arrays.x_c : c.arrays.queue)[9 * 13 + 5] = poison;
          INFO(describe(c) << ", " << poison << " in the batch " << in_batch);
          const Truth truth(oracle_inputs(c));
          const Outputs out = run_loss(c);
          // A row that is only there mixed may be left out for all by its partner's id.
          const bool reaches = in_batch || way.columns != FNCE_COLUMNS_MIXED;
          for (size_t i = 0; i < 35; ++i) {
            if (c.arrays.query_ids[i] == 4) CHECK(std::isfinite(truth.exact.loss[i]));
            if (c.arrays.query_ids[i] == 5 && reaches) CHECK_FALSE(std::isfinite(truth.exact.loss[i]));
          }
          FNCE_CHECK_VERDICT(compare_loss(truth, out, c.want));
        }
      }
    }
  }
}

TEST_CASE("columns left out: a bias that is not finite") {
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    for (const bool in_batch : {false, true}) {
      Case c = beyond_case({19, 50, 30, 13}, 2200, {true, true, false, false});
      c.arrays.upstream = {1.0f};
      c.arrays.query_ids.assign(19, 4);
      c.arrays.query_ids[7] = 5;
      (in_batch ? c.arrays.batch_ids : c.arrays.column_ids)[20] = 4;
      (in_batch ? c.arrays.batch_bias : c.arrays.column_bias)[20] = poison;
      const Outputs out = run_loss(c);
      for (size_t i = 0; i < 19; ++i) CHECK(static_cast<bool>(std::isfinite(out.loss[i])) == (i != 7));
      FNCE_CHECK_VERDICT(compare_loss(Truth(oracle_inputs(c)), out, c.want));
    }
  }
}

TEST_CASE("columns left out: statistics of rows beside one that meets a value that is not finite") {
  Case c = beyond_case({33, 60, 20, 13}, 2250, {true, false, false, false});
  c.problem.scores = kBoth;
  c.arrays.query_ids.assign(33, 4);
  c.arrays.query_ids[20] = 5;
  c.arrays.column_ids[33] = 4;
  Case clean = c;
  c.arrays.queue[33 * 13] = std::numeric_limits<float>::quiet_NaN();
  const Outputs out = run_loss(c), expected = run_loss(clean);
  const Statistics scores = run_scores(c), expected_scores = run_scores(clean);
  const auto check = [](const Statistics& actual, const Statistics& other) {
    for (size_t i = 0; i < 33; ++i) {
      INFO("row " << i);
      if (i == 20) {
        CHECK_FALSE(std::isfinite(actual.neg_mean[i]));
        CHECK_FALSE(std::isfinite(actual.neg_max[i]));
        CHECK_FALSE(std::isfinite(actual.neg_min[i]));
        CHECK_FALSE(std::isfinite(actual.neg_variance[i]));
        CHECK_FALSE(std::isfinite(actual.neg_log_mean_exp[i]));
        continue;
      }
      CHECK((actual.neg_mean[i] == other.neg_mean[i] && actual.neg_variance[i] == other.neg_variance[i]));
      CHECK((actual.neg_min[i] == other.neg_min[i] && actual.neg_max[i] == other.neg_max[i]));
      CHECK((actual.n_greater[i] == other.n_greater[i] && actual.neg_count[i] == other.neg_count[i]));
    }
  };
  check(out.mixed, expected.mixed);
  check(out.unmixed, expected.unmixed);
  check(scores, expected_scores);
}

TEST_CASE("columns left out: rows without any are rows with K = 0, beside rows that have some") {
  uint64_t seed = 2300;
  for (const Way& way : kWays) {
    for (const bool bias : {false, true}) {
      for (const bool decoupled : {false, true}) {
        Case c = way_case(way, {37, 65, 33, 11}, ++seed, {true, bias, false, decoupled});
        for (auto* ids : {&c.arrays.column_ids, &c.arrays.batch_ids})
          for (int64_t& id : *ids) id = 1;
        c.arrays.query_ids.assign(37, 2);
        for (const size_t i : {0, 8, 15, 16, 36}) c.arrays.query_ids[i] = 1;
        INFO(describe(c) << describe_columns(c));
        const Outputs out = run_loss(c);
        for (const size_t i : {0, 8, 15, 16, 36}) check_empty_row(c, out, i);
        FNCE_CHECK_VERDICT(compare_all(c, Truth(oracle_inputs(c)), out));
        // And nobody has any: then all is as without columns, to the bit.
        c.arrays.query_ids.assign(37, 1);
        const Outputs none = run_loss(c);
        for (size_t i = 0; i < 37; ++i) check_empty_row(c, none, i);
        for (const float x : none.dx_c) CHECK(x == 0.0f);
        Case empty = beyond_case({37, 0, 0, 11}, seed, {false, false, false, decoupled});
        empty.problem.lambda_pos = c.problem.lambda_pos;
        empty.problem.scores = kBoth;
        empty.arrays = c.arrays;
        for (auto* ids : {&empty.arrays.query_ids, &empty.arrays.column_ids, &empty.arrays.batch_ids}) ids->clear();
        for (auto* rows : {&empty.arrays.queue, &empty.arrays.x_c, &empty.arrays.column_bias, &empty.arrays.batch_bias})
          rows->clear();
        empty.arrays.permutation.clear();
        Outputs without = run_loss(empty);
        without.dx_c = none.dx_c;
        if (bias) without.mixed.entropy.clear();
        CHECK(same_bits(without, none));
      }
    }
  }
}

TEST_CASE("columns left out: masks that match nothing change no bit") {
  uint64_t seed = 2400;
  for (const Way& way : kWays) {
    for (const Shape& shape : {Shape{37, 130, 0, 24}, Shape{37, 0, 97, 24}, Shape{50, 130, 97, 33}}) {
      if (shape.k == 0 && way.granularity != FNCE_LAMBDA_NONE) continue;
      const Case bare = way_case(way, shape, ++seed, {});
      const Outputs expected = run_loss(bare);
      const Statistics scores = run_scores(bare);
      for (int which = 0; which < 4; ++which) {
        Case c = bare;
        c.problem.id_mask = which == 0 || which == 3;
        c.problem.margin_mask = which == 1 || which == 3;
        c.problem.column_bias = which == 2;
        c.numbers.margin = kInfinity;
        if (c.problem.id_mask) {
          c.arrays.query_ids.assign(static_cast<size_t>(shape.n), FNCE_NO_COLUMN);
          c.arrays.query_ids[1] = 77;
          c.arrays.column_ids.assign(static_cast<size_t>(shape.k), 5);
          c.arrays.batch_ids.assign(static_cast<size_t>(shape.c), INT64_MAX);
        }
        if (c.problem.column_bias) {
          c.arrays.column_bias.assign(static_cast<size_t>(shape.k), 0.0f);
          c.arrays.batch_bias.assign(static_cast<size_t>(shape.c), 0.0f);
        }
        INFO(describe(c) << describe_columns(c));
        // Families differ in bits: where masked calls take another one, its own test compares them.
        if (Plan(c.problem).info().family != Plan(bare.problem).info().family) {
          WARN("skipped: masked calls take another family");
          return;
        }
        Outputs out = run_loss(c);
        if (c.problem.column_bias) out.mixed.entropy = expected.mixed.entropy;
        CHECK(same_bits(expected, out));
        CHECK(same_bits(scores, run_scores(c)));
      }
    }
  }
}

TEST_CASE("columns left out: the margin's choice, and ids that compare all 64 bits") {
  // Scores are the first coordinate; the positive's is 0.5.
  Case c = make_case(FNCE_PRESET_MOCO, 1, 40, 2);
  c.problem.scores = kBoth;
  c.problem.margin_mask = 1;
  c.arrays.x_q = {1, 0};
  c.arrays.x_k = {0.5f, std::sqrt(0.75f)};
  for (int j = 0; j < 40; ++j) {
    const float score = j < 11 ? 0.9f : j < 15 ? 0.6f : 0.3f;
    c.arrays.queue.push_back(score);
    c.arrays.queue.push_back(std::sqrt(1 - score * score));
  }
  for (const auto& [margin, count] : {std::pair{1.0f, 40}, {0.2f, 29}, {0.0f, 25}, {-0.1f, 25}, {-0.3f, 0}}) {
    c.numbers.margin = margin;
    const Outputs out = run_loss(c);
    INFO("margin " << margin);
    CHECK(out.mixed.neg_count[0] == count);
    CHECK(out.unmixed.neg_count[0] == count);
    CHECK(run_scores(c).neg_count[0] == count);
  }
  for (const float margin : {kInfinity, -kInfinity}) {
    c.numbers.margin = margin;
    CHECK(run_loss(c).mixed.neg_count[0] == (margin > 0 ? 40 : 0));
  }
  Case ids = beyond_case({1, 70, 0, 3}, 2500, {true, false, false, false});
  ids.problem.scores = kBoth;
  for (int bit = 0; bit < 64; ++bit) {
    ids.arrays.query_ids[0] = 12345;
    ids.arrays.column_ids.assign(70, 0);
    for (int j = 0; j < 64; ++j)
      ids.arrays.column_ids[static_cast<size_t>(j)] =
          j == bit ? 12345 : static_cast<int64_t>(12345ull ^ uint64_t{1} << j);
    CHECK(run_loss(ids).mixed.neg_count[0] == 69);
  }
}

TEST_CASE("columns: the same bits from any number of threads, again, and from garbage") {
  uint64_t seed = 2600;
  // Rows beyond a block and columns beyond a chunk of the CPU's; an emulated device has smaller ones.
  const std::vector<Shape> shapes = device().emulated()
                                        ? std::vector<Shape>{{70, 300, 133, 24}, {150, 60, 130, 9}, {5, 0, 700, 17}}
                                        : std::vector<Shape>{{70, 900, 333, 24}, {1100, 60, 1030, 9}, {5, 0, 3000, 17}};
  for (const Way& way : kWays) {
    for (const Shape& shape : shapes) {
      if (shape.k == 0 && way.granularity != FNCE_LAMBDA_NONE) continue;
      Case c = way_case(way, shape, ++seed, {true, true, false, seed % 2 == 0});
      INFO(describe(c) << describe_columns(c));
      c.problem.threads = 1;
      const Outputs single = run_loss(c);
      CHECK(same_bits(single, run_loss(c, 0x7F)));
      for (const int32_t threads : {2, 4, 7}) {
        if (device().kind() != FNCE_CPU) continue;
        c.problem.threads = threads;
        CHECK(same_bits(single, run_loss(c)));
      }
    }
  }
}

TEST_CASE("columns left out: a row that is no number hides no other row's first column") {
  // The first columns count for nobody but row 40, whose maximum rises later; rows of weight 0 beside it hold NaN.
  for (const size_t lanes : {4, 8, 16}) {
    Case c = beyond_case({96, 200, 0, 16}, 2300, {true, false, false, false});
    c.arrays.weight.assign(96, 1.0f);
    for (size_t i = 0; i < 96; ++i) c.arrays.query_ids[i] = static_cast<int64_t>(i % lanes);
    for (size_t j = 0; j < 200; ++j) c.arrays.column_ids[j] = static_cast<int64_t>(j / 25);
    const Outputs clean = run_loss(c);
    Case spoiled = c;
    for (size_t i = 0; i < 96; ++i) {
      if (i / lanes % 3 != 1) continue;
      spoiled.arrays.weight[i] = 0.0f;
      for (size_t k = 0; k < 16; ++k) spoiled.arrays.x_q[i * 16 + k] = std::numeric_limits<float>::quiet_NaN();
    }
    const Outputs out = run_loss(spoiled);
    for (size_t i = 0; i < 96; ++i) {
      if (i / lanes % 3 == 1) continue;
      INFO("row " << i << ", rows of no number every " << lanes);
      CHECK(out.loss[i] == clean.loss[i]);
    }
  }
}

TEST_CASE("columns left out: a column that is not finite is not above a margin, and every statistic says so") {
  Case c = beyond_case({20, 1, 0, 13}, 2400, {false, false, false, false});
  c.problem.scores = kBoth;
  c.problem.margin_mask = 1;
  c.numbers.margin = -4.0f;  // below every score: a finite column would be left out
  const Outputs finite = run_loss(c);
  for (size_t i = 0; i < 20; ++i) check_empty_row(c, finite, i);
  for (const float poison : kPoisons) {
    if (std::isfinite(poison)) continue;
    c.arrays.queue[4] = poison;
    const Outputs out = run_loss(c);
    for (size_t i = 0; i < 20; ++i) {
      INFO("row " << i << ", " << poison);
      CHECK_FALSE(std::isfinite(out.loss[i]));
      for (const Statistics* s : {&out.mixed, &out.unmixed}) {
        CHECK((s->neg_count[i] == 1 && s->n_greater_equal[i] == 1));
        CHECK_FALSE(std::isfinite(s->neg_mean[i]));
        CHECK_FALSE(std::isfinite(s->neg_log_mean_exp[i]));
      }
    }
  }
}

TEST_CASE("columns left out: a lambda that is not finite spoils its own mixed column alone") {
  Case c = way_case({FNCE_LAMBDA_ROW, FNCE_COLUMNS_MIXED, 0}, {24, 64, 0, 13}, 2500, {true, false, false, false});
  c.problem.lambda_neg_source = FNCE_GIVEN;
  c.arrays.lambda_neg.assign(64, 0.25f);
  c.arrays.query_ids.assign(24, 4);
  c.arrays.column_ids.assign(64, 7);
  const Outputs clean = run_loss(c);
  c.arrays.column_ids[20] =
      4;  // leaves out the mixed columns that row 20 is in: its own, and that of the row before it
  const Outputs without = run_loss(c);
  c.arrays.lambda_neg[20] = std::numeric_limits<float>::quiet_NaN();
  const Outputs spoiled = run_loss(c);
  CHECK(same_bits(without, spoiled));
  CHECK_FALSE(same_bits(clean, without));
  c.arrays.column_ids[20] = 7;
  const Outputs counting = run_loss(c);
  for (size_t i = 0; i < 24; ++i) {
    CHECK_FALSE(std::isfinite(counting.loss[i]));
    CHECK(std::isfinite(counting.unmixed.neg_mean[i]));
  }
}
