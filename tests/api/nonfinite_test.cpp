// NaN and infinity in any input appear as non-finite results in exactly the rows they belong to; rows of weight 0 stay
// exactly 0; sums that overflow float32 never come back as plausible numbers.
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

// Quiet and signalling NaN of either sign with payloads that look like numbers to sloppy bit tricks, and infinities.
const std::vector<float> kPoisons{std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0x7f800001u),
                                  std::bit_cast<float>(0xffc12345u),       std::bit_cast<float>(0xff800001u),
                                  std::numeric_limits<float>::infinity(),  -std::numeric_limits<float>::infinity()};

struct Setting {
  int32_t granularity;
  int32_t columns;
  int32_t anchor;
  bool renormalize;
};

const std::vector<Setting> kSettings{{FNCE_LAMBDA_NONE, FNCE_COLUMNS_QUEUE, FNCE_ANCHOR_MIXED, false},
                                     {FNCE_LAMBDA_CALL, FNCE_COLUMNS_MIXED, FNCE_ANCHOR_MIXED, false},
                                     {FNCE_LAMBDA_ROW, FNCE_COLUMNS_UNION, FNCE_ANCHOR_QUERY, false},
                                     {FNCE_LAMBDA_DIMENSION, FNCE_COLUMNS_MIXED, FNCE_ANCHOR_QUERY, true},
                                     {FNCE_LAMBDA_ELEMENT, FNCE_COLUMNS_MIXED, FNCE_ANCHOR_MIXED, false}};

Case base_case(const Setting& s, int64_t n, int64_t k, int64_t d, uint64_t seed) {
  Case c = make_case(FNCE_PRESET_MOCO, n, k, d);
  fnce_problem& p = c.problem;
  p.lambda_pos = p.lambda_neg = s.granularity;
  if (s.granularity != FNCE_LAMBDA_NONE) p.lambda_pos_source = p.lambda_neg_source = FNCE_GIVEN;
  p.columns = s.columns;
  p.anchor = s.anchor;
  p.renormalize_pos = p.renormalize_neg = s.renormalize;
  p.reduction = FNCE_REDUCTION_NONE;
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  for (float& lambda : c.arrays.lambda_pos) lambda += 0.5f;
  return c;
}

using Target = std::function<std::vector<float>&(Arrays&)>;

// Plants each poison at a few places of one array and compares with the oracle, which marks the rows by the rule.
void plant_everywhere(const Setting& s, int64_t d, const Target& target) {
  const Case clean = base_case(s, 19, 75, d, 60 + static_cast<uint64_t>(d));
  size_t place = 3;
  for (const float poison : kPoisons) {
    for (int repeat = 0; repeat < affordable_repeats(2, 1); ++repeat) {
      Case c = clean;
      std::vector<float>& array = target(c.arrays);
      if (array.empty()) return;
      // First, last, and places in between, whatever the vector width.
      place = repeat == 1 && poison == kPoisons[4] ? array.size() - 1 : (place * 7919 + 13) % array.size();
      array[place] = poison;
      INFO(describe(c) << ", place " << place << ", bits " << std::bit_cast<uint32_t>(poison));
      FNCE_CHECK_VERDICT(compare_loss(Truth(oracle_inputs(c)), run_loss(c), c.want));
    }
  }
}

void for_every_setting(const Target& target) {
  for (const Setting& s : kSettings)
    for (const int64_t d : {1, 8, 13, 100})
      if (!device().emulated() || d == 13 || d == 100) plant_everywhere(s, d, target);
}

bool none_finite(const std::vector<float>& values, size_t first, size_t count) {
  for (size_t i = first; i < first + count; ++i)
    if (std::isfinite(values[i])) return false;
  return true;
}

bool all_zero(const std::vector<float>& values, size_t first, size_t count) {
  for (size_t i = first; i < first + count; ++i)
    if (values[i] != 0.0f) return false;
  return true;
}

// The statistics of the negatives are not finite in rows [first, first+count) and finite in the others.
void check_statistics(const Statistics& s, size_t first, size_t count) {
  const struct {
    const char* name;
    const std::vector<float>& values;
  } fields[] = {{"neg_mean", s.neg_mean},
                {"neg_variance", s.neg_variance},
                {"neg_min", s.neg_min},
                {"neg_max", s.neg_max},
                {"neg_log_mean_exp", s.neg_log_mean_exp}};
  for (const auto& field : fields) {
    for (size_t i = 0; i < field.values.size(); ++i) {
      INFO(field.name << ", row " << i << " is " << field.values[i]);
      CHECK(static_cast<bool>(std::isfinite(field.values[i])) == (i < first || i >= first + count));
    }
  }
}

}  // namespace

TEST_CASE("nonfinite: in x_q") {
  for_every_setting([](Arrays& a) -> std::vector<float>& { return a.x_q; });
}
TEST_CASE("nonfinite: in x_k") {
  for_every_setting([](Arrays& a) -> std::vector<float>& { return a.x_k; });
}
TEST_CASE("nonfinite: in the queue") {
  for_every_setting([](Arrays& a) -> std::vector<float>& { return a.queue; });
}
TEST_CASE("nonfinite: in lambda of the positives") {
  for_every_setting([](Arrays& a) -> std::vector<float>& { return a.lambda_pos; });
}
TEST_CASE("nonfinite: in lambda of the negatives") {
  for_every_setting([](Arrays& a) -> std::vector<float>& { return a.lambda_neg; });
}
TEST_CASE("nonfinite: in a weight") {
  for_every_setting([](Arrays& a) -> std::vector<float>& {
    a.weight.resize(19, 1.5f);
    return a.weight;
  });
}

TEST_CASE("nonfinite: a row of weight 0 stays 0, gradients too, whatever is in it or in the queue") {
  for (const Setting& s : kSettings) {
    for (const float poison : kPoisons) {
      for (const bool in_queue : {false, true}) {
        Case c = base_case(s, 9, 40, 13, 70);
        c.arrays.weight.assign(9, 1.0f);
        c.arrays.weight[4] = 0.0f;
        (in_queue ? c.arrays.queue : c.arrays.x_q)[4 * 13 + 2] = poison;
        if (!in_queue) c.arrays.x_k[4 * 13] = poison;
        for (const int32_t reduction : {FNCE_REDUCTION_NONE, FNCE_REDUCTION_MEAN, FNCE_REDUCTION_SUM}) {
          c.problem.reduction = reduction;
          INFO(describe(c) << (in_queue ? ", queue" : ", row"));
          const Outputs out = run_loss(c);
          CHECK(all_zero(out.dq, 4 * 13, 13));
          CHECK(all_zero(out.dk, 4 * 13, 13));
          CHECK(all_zero(out.dtemperature_rows, 4, 1));
          if (reduction == FNCE_REDUCTION_NONE)
            CHECK(out.loss[4] == 0.0f);
          else
            CHECK(static_cast<bool>(std::isfinite(out.loss[0])) == !in_queue);
          FNCE_CHECK_VERDICT(compare_loss(Truth(oracle_inputs(c)), out, c.want));
        }
      }
    }
  }
}

TEST_CASE("nonfinite: nothing but weights of 0 gives exact zeros") {
  Case c = base_case(kSettings[1], 9, 40, 13, 71);
  c.problem.reduction = FNCE_REDUCTION_MEAN;
  c.arrays.weight.assign(9, 0.0f);
  c.arrays.queue[5] = NAN;
  const Outputs out = run_loss(c);
  CHECK(out.loss[0] == 0.0f);
  CHECK(out.dtemperature[0] == 0.0f);
  CHECK(all_zero(out.dq, 0, out.dq.size()));
}

TEST_CASE("nonfinite: statistics of poisoned scores are not finite") {
  for (const Setting& s : kSettings) {
    for (const float poison : kPoisons) {
      Case c = base_case(s, 9, 75, 13, 72);
      c.problem.scores = kBoth;
      Case in_queue = c;
      c.arrays.x_q[3 * 13 + 7] = poison;
      INFO(describe(c) << ", bits " << std::bit_cast<uint32_t>(poison));
      const Outputs row = run_loss(c);
      check_statistics(row.mixed, 3, 1);
      check_statistics(row.unmixed, 3, 1);
      CHECK(none_finite(row.mixed.pos, 3, 1));
      CHECK(none_finite(row.mixed.entropy, 3, 1));
      CHECK(none_finite(row.mixed.dq_norm, 3, 1));
      in_queue.arrays.queue[40 * 13 + 5] = poison;
      const Outputs all = run_loss(in_queue);
      check_statistics(all.mixed, 0, 9);
      check_statistics(all.unmixed, 0, 9);
      CHECK(none_finite(all.mixed.entropy, 0, 9));
      for (const float pos : all.mixed.pos) CHECK(std::isfinite(pos));
    }
  }
}

namespace {

// What is finite must be right; what overflowed may be anything that is not finite.
void check_no_nonsense(const Case& c) {
  INFO(describe(c));
  const Outputs out = run_loss(c);
  const Truth truth(oracle_inputs(c));
  const auto d = static_cast<size_t>(c.problem.d);
  for (size_t i = 0; i < static_cast<size_t>(c.problem.n); ++i) {
    INFO("row " << i << ", loss " << out.loss[i] << ", truth " << truth.exact.loss[i]);
    if (std::isfinite(out.loss[i]))
      CHECK(std::abs(double(out.loss[i]) - truth.exact.loss[i]) <= 1e-3 * std::max(1.0, truth.exact.loss[i]));
    double norm = 0, error = 0;
    for (size_t col = i * d; col < (i + 1) * d; ++col) {
      norm += truth.exact.dq[col] * truth.exact.dq[col];
      error += (double(out.dq[col]) - truth.exact.dq[col]) * (double(out.dq[col]) - truth.exact.dq[col]);
    }
    INFO("|dq| " << std::sqrt(norm) << ", error " << std::sqrt(error));
    if (std::isfinite(error)) CHECK(std::sqrt(error) <= 1e-3 * std::sqrt(norm) + 1e-30);
  }
}

void scale_all(std::vector<float>& values, float by) {
  for (float& value : values) value *= by;
}

}  // namespace

TEST_CASE("nonfinite: huge values without normalisation overflow to non-finite, never to nonsense") {
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    struct Scale {
      float q, k, queue;
    };
    for (const Scale& s :
         {Scale{1e20f, 1e20f, 1e20f}, Scale{1e30f, 1e-30f, 1e30f}, Scale{1e15f, 1e16f, 1e16f},
          Scale{1e19f, 1.0f, 1e12f}, Scale{3e38f, 1.0f, 1.0f}, Scale{1.0f, 1.0f, 3e38f}, Scale{1e10f, 1e10f, 1e10f}}) {
      Case c = make_case(preset, 5, 40, 8);
      c.problem.normalize = 0;
      c.problem.reduction = FNCE_REDUCTION_NONE;
      Random random(80);
      fill_inputs(c, random);
      scale_all(c.arrays.x_q, s.q);
      scale_all(c.arrays.x_k, s.k);
      scale_all(c.arrays.queue, s.queue);
      INFO("scales " << s.q << " " << s.k << " " << s.queue);
      check_no_nonsense(c);
    }
  }
}

TEST_CASE("nonfinite: huge values with normalisation, and temperatures that overflow the logits") {
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT}) {
    for (const float scale : {1e15f, 1e18f, 1e25f, 3e37f}) {
      Case c = make_case(preset, 5, 40, 8);
      c.problem.reduction = FNCE_REDUCTION_NONE;
      Random random(81);
      fill_inputs(c, random);
      scale_all(c.arrays.x_q, scale);
      INFO("scale " << scale);
      check_no_nonsense(c);
    }
    for (const float temperature : {1e-6f, 1e-20f, 1e-31f, 1e-37f}) {
      Case c = make_case(preset, 5, 40, 8);
      c.problem.reduction = FNCE_REDUCTION_NONE;
      c.numbers.temperature = temperature;
      Random random(82);
      fill_inputs(c, random);
      INFO("temperature " << temperature);
      check_no_nonsense(c);
    }
  }
}

TEST_CASE("nonfinite: a norm that overflows leaves no finite statistic, anchor or queue row") {
  Case c = base_case(kSettings[1], 9, 40, 8, 83);
  c.problem.scores = kBoth;
  for (size_t col = 3 * 8; col < 4 * 8; ++col) c.arrays.x_q[col] = 1e20f;
  const Outputs out = run_loss(c);
  const Statistics plain = run_scores(c);
  CHECK(none_finite(out.loss, 3, 1));
  for (const Statistics* s : {&out.mixed, &out.unmixed, &plain}) {
    check_statistics(*s, 3, 1);
    CHECK(none_finite(s->pos, 3, 1));
    CHECK(std::isfinite(s->pos[2]));
  }
  const Plan plan(c.problem);
  const Call call(c);
  const Buffer<unsigned char> workspace = make_workspace(plan);
  const Buffer<float> anchor(9 * 8), pos(9), unmixed_pos(9);
  const fnce_anchors anchors{anchor.get(), pos.get(), unmixed_pos.get(), {}};
  FNCE_REQUIRE_OK(fnce_prep(plan.get(), &call.args, &anchors, workspace.get(), workspace.bytes(), device().stream()));
  CHECK(none_finite(anchor.values(), 3 * 8, 8));
  CHECK(none_finite(pos.values(), 3, 1));

  const Buffer<float> keys(std::vector<float>(2 * 8, 1e20f)), queue(std::vector<float>(4 * 8, 0.5f));
  const Buffer<int64_t> position(std::vector<int64_t>{1}), after(1);
  fnce_push push;
  FNCE_REQUIRE_OK(fnce_push_init(&push, sizeof push));
  push.n = 2;
  push.k = 4;
  push.d = 8;
  push.device = device().kind();
  push.device_index = device().index();
  push.keys = keys.get();
  push.queue = queue.get();
  push.position_in = position.get();
  push.position_out = after.get();
  FNCE_REQUIRE_OK(fnce_queue_push(&push, device().stream()));
  CHECK(none_finite(queue.values(), 8, 16));
}
