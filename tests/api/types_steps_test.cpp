// Element types through the other calls: the loss in steps over shards, score statistics, repeats and threads, what is
// not finite, extreme scores, alignment.
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "oracle/operands.h"
#include "support/check.h"
#include "support/compare.h"
#include "support/random_case.h"
#include "support/refusal.h"
#include "support/shards.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
constexpr int32_t kHalves[] = {FNCE_FLOAT16, FNCE_BFLOAT16};
constexpr int32_t kPresets[] = {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE};

Case typed_case(int32_t preset, int64_t n, int64_t k, int64_t d, int32_t feature, int32_t queue, uint64_t seed) {
  Case c = make_case(preset, n, k, d);
  set_types(c, feature, queue, feature);
  c.problem.scores = kBoth;
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

Case sharded_case(int32_t preset, int32_t feature, int32_t queue) {
  Case c = typed_case(preset, 21, 160, 24, feature, queue, 81);
  c.problem.perm_block = 32;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.problem.row_offset = 100;
  c.want.dtemperature = false;
  return c;
}

void set_all_rows(std::vector<float>& rows, const std::vector<float>& row) {
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = row[i % row.size()];
}

// What fnce_queue_push makes of these keys.
std::vector<float> pushed(const std::vector<float>& keys, int64_t d, int32_t key_type, int32_t queue_type) {
  const Elements from(key_type, keys), queue(queue_type, std::vector<float>(keys.size(), 0.0f));
  const Buffer<int64_t> position(std::vector<int64_t>{0});
  fnce_push push;
  require_ok(fnce_push_init(&push, sizeof push));
  push.n = push.k = from.count() / d;
  push.d = d;
  push.device = device().kind();
  push.device_index = device().index();
  push.key_type = key_type;
  push.queue_type = queue_type;
  push.keys = from.get();
  push.queue = queue.get();
  push.position_in = position.get();
  const Buffer<int64_t> after(1);
  push.position_out = after.get();
  require_ok(fnce_queue_push(&push, device().stream()));
  return queue.values();
}

}  // namespace

TEST_CASE("types: shards of rows and columns equal the whole problem") {
  for (const int32_t preset : kPresets)
    for (const int32_t feature : kTypes)
      for (const int32_t queue : kTypes) {
        const Case whole = sharded_case(preset, feature, queue);
        INFO(describe(whole));
        const Truth truth(oracle_inputs(whole));
        FNCE_CHECK_VERDICT(compare_all(whole, truth, run_in_steps(whole, {10, 11}, {96, 64}, Reduce::kMerge)));
        FNCE_CHECK_VERDICT(compare_all(whole, truth, run_in_steps(whole, {21}, {64, 0, 96}, Reduce::kMergeInPlace)));
        CHECK(same_bits(run_loss(whole), run_in_steps(whole, {21}, {160}, Reduce::kMerge)));
      }
}

TEST_CASE("types: exported anchors are what the negatives are multiplied by, positives what ranks compare with") {
  for (const int32_t queue : kTypes)
    for (const int32_t anchor : {FNCE_ANCHOR_MIXED, FNCE_ANCHOR_QUERY}) {
      Case c = typed_case(FNCE_PRESET_FT, 21, 64, 40, FNCE_BFLOAT16, queue, 82);
      c.problem.anchor = anchor;
      INFO(describe(c));
      const Truth truth(oracle_inputs(c));
      const Plan plan(c.problem);
      const Call call(c);
      const Buffer<unsigned char> workspace = make_workspace(plan);
      const Buffer<float> a(21 * 40), pos(21), unmixed_pos(21);
      const fnce_anchors anchors{a.get(), pos.get(), unmixed_pos.get(), {}};
      FNCE_REQUIRE_OK(
          fnce_prep(plan.get(), &call.args, &anchors, workspace.get(), workspace.bytes(), device().stream()));
      const std::vector<float> actual = a.values(), mixed = pos.values(), unmixed = unmixed_pos.values();
      // With 16-bit products they are what such a rounding leaves as it is; else they have more digits than 16 bits
      // hold.
      const oracle::Rounding rounding = oracle::anchor_rounding(truth.inputs);
      const oracle::Rounding any{oracle::Element::kFloat16, 0, true};
      const std::vector<float> again = oracle::rounded_rows(rounding.any() ? rounding : any, actual, 40);
      size_t off = 0;
      for (size_t i = 0; i < actual.size(); ++i) off += std::abs(double(actual[i]) - truth.exact.scoring[i]) > 2e-6;
      // One of many elements may lie in the middle of two neighbours.
      CHECK(off <= (rounding.any() ? 3 : 0));
      CHECK((again == actual) == rounding.any());
      for (size_t i = 0; i < 21; ++i) {
        const double slack = truth.condition.mixed.rank_rounding[i] + truth.condition.unmixed.rank_rounding[i];
        CHECK(std::abs(double(mixed[i]) - truth.exact.mixed.rank_pos[i]) < 2e-6 + slack);
        CHECK(std::abs(double(unmixed[i]) - truth.exact.unmixed.rank_pos[i]) < 2e-6 + slack);
      }
    }
}

TEST_CASE("types: statistics of the loss and alone, in every feature and queue type") {
  for (const int32_t preset : kPresets)
    for (const int32_t feature : kTypes)
      for (const int32_t queue : kTypes) {
        const Case c = typed_case(preset, 33, 301, 24, feature, queue, 83);
        INFO(describe(c));
        const Truth truth(oracle_inputs(c));
        FNCE_CHECK_VERDICT(compare_all(c, truth, run_loss(c)));
        FNCE_CHECK_VERDICT(compare_statistics(truth, ScoreSet::kPlain, run_scores(c)));
      }
}

TEST_CASE("types: the reported positive is not rounded to the queue's type") {
  for (const int32_t queue : kHalves) {
    Case c = typed_case(FNCE_PRESET_MOCO, 9, 40, 64, FNCE_FLOAT32, queue, 84);
    const Outputs typed = run_loss(c);
    const Statistics alone = run_scores(c);
    c.problem.queue_type = FNCE_FLOAT32;
    const Outputs plain = run_loss(c);
    CHECK(same_bits(typed.mixed.pos, plain.mixed.pos));
    CHECK(same_bits(typed.unmixed.pos, plain.unmixed.pos));
    CHECK(same_bits(alone.pos, plain.unmixed.pos));
  }
}

TEST_CASE("types: a collapsed encoder ties with every rounded copy of its key and does not rank first") {
  struct Way {
    int32_t preset, columns;
  };
  for (const Way& way : {Way{FNCE_PRESET_MOCO, -1}, {FNCE_PRESET_FT, -1}, {FNCE_PRESET_FT, FNCE_COLUMNS_UNION}})
    for (const int32_t feature : kTypes)
      for (const int32_t queue : kTypes)
        for (const int64_t d : {3, 100, 128}) {
          Case c = typed_case(way.preset, 9, 77, d, feature, queue, 85);
          if (way.columns >= 0) c.problem.columns = way.columns;
          Random random(86 + static_cast<uint64_t>(d));
          const std::vector<float> row = oracle::rounded(element_of(feature), gaussian_rows(random, 1, d));
          set_all_rows(c.arrays.x_q, row);
          set_all_rows(c.arrays.x_k, row);
          set_all_rows(c.arrays.queue, pushed(row, d, feature, queue));
          INFO(describe(c));
          const Outputs out = run_loss(c);
          const Statistics plain = run_scores(c);
          for (const Statistics* s : {&out.mixed, &out.unmixed, &plain})
            for (size_t i = 0; i < 9; ++i) {
              CHECK(s->n_greater[i] == 0);
              CHECK(s->n_greater_equal[i] == (s == &out.mixed && way.columns == FNCE_COLUMNS_UNION ? 2 * 77 : 77));
            }
          FNCE_CHECK_VERDICT(compare_all(c, Truth(oracle_inputs(c)), out));
        }
}

TEST_CASE("types: same bits for any number of threads, any garbage in the workspace") {
  for (const int32_t queue : kTypes)
    for (const auto& [preset, n, k, d] : {std::tuple<int32_t, int64_t, int64_t, int64_t>{FNCE_PRESET_FT, 33, 3000, 64},
                                          {FNCE_PRESET_FT_ELEMENTWISE, 64, 1049, 32},
                                          {FNCE_PRESET_MOCO, 1100, 300, 16}}) {
      Case c = typed_case(preset, n, affordable(n, k, d), d, queue, queue, 87);
      c.problem.threads = 1;
      INFO(describe(c));
      const Outputs single = run_loss(c, 0x00);
      CHECK(same_bits(single, run_loss(c, 0xFF)));
      for (const int32_t threads : {2, 5}) {
        c.problem.threads = threads;
        CHECK(same_bits(single, run_loss(c, 0x7F)));
      }
    }
}

TEST_CASE("types: NaN of every kind and infinities in 16-bit features and queues reach exactly their rows") {
  const std::vector<float> poisons{NAN, std::bit_cast<float>(0x7fa00000u), std::bit_cast<float>(0xff900000u), INFINITY,
                                   -INFINITY};
  for (const int32_t preset : kPresets)
    for (const int32_t type : kHalves)
      for (const int64_t d : {1, 13, 100}) {
        Case clean = typed_case(preset, 19, 75, d, type, type, 88);
        clean.problem.reduction = FNCE_REDUCTION_NONE;
        clean.problem.scores = FNCE_SCORES_NONE;
        size_t place = 5;
        for (auto target : {&Arrays::x_q, &Arrays::x_k, &Arrays::queue})
          for (const float poison : poisons) {
            Case c = clean;
            std::vector<float>& array = c.arrays.*target;
            place = (place * 7919 + 13) % array.size();
            array[place] = poison;
            INFO(describe(c) << ", place " << place << ", bits " << std::bit_cast<uint32_t>(poison));
            FNCE_CHECK_VERDICT(compare_loss(Truth(oracle_inputs(c)), run_loss(c), c.want));
          }
      }
}

TEST_CASE("types: gradients of zero rows, and of rows below epsilon, overflow to infinity and not to nonsense") {
  for (const int32_t type : kTypes) {
    Case c = typed_case(FNCE_PRESET_FT, 8, 50, 24, type, type, 89);
    c.problem.reduction = FNCE_REDUCTION_NONE;
    for (size_t col = 0; col < 24; ++col) c.arrays.x_q[24 + col] = 0.0f;
    for (size_t col = 0; col < 24; ++col) c.arrays.x_k[48 + col] *= type == FNCE_FLOAT16 ? 0x1p-20f : 1e-14f;
    c.arrays.x_k = oracle::rounded(element_of(type), c.arrays.x_k);
    INFO(describe(c));
    const Outputs out = run_loss(c);
    FNCE_CHECK_VERDICT(compare_all(c, Truth(oracle_inputs(c)), out));
    if (type == FNCE_FLOAT16) CHECK(std::isinf(out.dq[24]));
  }
}

TEST_CASE("types: float16 denormals count, in features and in the queue") {
  for (const int32_t preset : kPresets) {
    Case c = typed_case(preset, 9, 70, 40, FNCE_FLOAT16, FNCE_FLOAT16, 90);
    c.problem.normalize = 0;
    for (auto* array : {&c.arrays.x_q, &c.arrays.x_k, &c.arrays.queue})
      for (float& x : *array) x = static_cast<float>(oracle::rounded(oracle::Element::kFloat16, double(x) * 0x1p-14));
    c.numbers.temperature = 1e-9f;  // products of about 2^-28
    c.problem.gradient_type = FNCE_FLOAT32;
    INFO(describe(c));
    const Outputs out = run_loss(c);
    const Truth truth(oracle_inputs(c));
    FNCE_CHECK_VERDICT(compare_all(c, truth, out));
    CHECK(gradient_has_signal(truth));
  }
}

TEST_CASE("types: low and high temperatures, sudden maxima, scores that rise all along the queue") {
  for (const int32_t queue : kHalves)
    for (const int32_t preset : kPresets)
      for (const float temperature : {0.003f, 0.02f, 100.0f}) {
        Case c = typed_case(preset, device().emulated() ? 9 : 33, 512, 64, FNCE_FLOAT32, queue, 91);
        c.numbers.temperature = temperature;
        INFO(describe(c));
        FNCE_CHECK_VERDICT(check_case(c));
        // Row j of the queue leans towards query 0 more and more; one stands out.
        for (int64_t j = 0; j < 512; ++j) {
          const double lean = j == 300 ? 1.0 : double(j) / 512;
          for (int64_t col = 0; col < 64; ++col) {
            float& x = c.arrays.queue[static_cast<size_t>(j * 64 + col)];
            x = static_cast<float>(0.3 * double(x) + lean * double(c.arrays.x_q[static_cast<size_t>(col)]) / 10);
          }
        }
        c.arrays.queue = oracle::rounded(element_of(queue), c.arrays.queue);
        FNCE_CHECK_VERDICT(check_case(c));
      }
}

TEST_CASE("types: equal keys, whose weights all round alike") {
  for (const int32_t queue : kHalves)
    for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT}) {
      Case c = typed_case(preset, 9, 192, 40, FNCE_FLOAT32, queue, 92);
      for (size_t i = 0; i < c.arrays.queue.size(); ++i) c.arrays.queue[i] = c.arrays.queue[i % 80];
      INFO(describe(c));
      FNCE_CHECK_VERDICT(check_case(c));
    }
}

TEST_CASE("types: 16-bit arrays may lie at any even address; an odd one is refused by name") {
  for (const int32_t type : kHalves) {
    Case c = typed_case(FNCE_PRESET_FT, 17, 130, 37, type, type, 93);
    const Outputs expected = run_loss(c);
    for (const size_t skew : {4, 12, 28, 60}) {  // half as many bytes for these types: 2, 6, 14, 30
      c.skew = skew;
      CHECK(same_bits(expected, run_loss(c)));
    }
    const Case good = typed_case(FNCE_PRESET_FT, 4, 32, 8, type, type, 94);
    const auto odd = [](const void* p) { return misaligned(static_cast<unsigned char*>(const_cast<void*>(p))); };
    const std::string two = "multiples of 2";
    check_args_refused(good, [&](fnce_args& a) { a.x_q = odd(a.x_q); }, FNCE_INVALID_ARGUMENT, {"args.x_q ", two});
    check_args_refused(good, [&](fnce_args& a) { a.x_k = odd(a.x_k); }, FNCE_INVALID_ARGUMENT, {"args.x_k ", two});
    check_args_refused(good, [&](fnce_args& a) { a.queue = odd(a.queue); }, FNCE_INVALID_ARGUMENT,
                       {"args.queue ", two});
    check_args_refused(good, [&](fnce_args& a) { a.dq = odd(a.dq); }, FNCE_INVALID_ARGUMENT, {"args.dq ", two});
    check_args_refused(good, [&](fnce_args& a) { a.dk = odd(a.dk); }, FNCE_INVALID_ARGUMENT, {"args.dk ", two});
    // What is float32 beside them still needs four.
    check_args_refused(good, [&](fnce_args& a) { a.loss = reinterpret_cast<float*>(odd(odd(a.loss))); },
                       FNCE_INVALID_ARGUMENT, {"args.loss ", "multiples of 4"});
  }
}
