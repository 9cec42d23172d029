// Every field of fnce_args that can be wrong: the status, the sentence, outputs as they were.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/refusal.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
const float kInfinity = std::numeric_limits<float>::infinity();

Case good_case(int32_t preset = FNCE_PRESET_FT) {
  Case c = make_case(preset, 4, 32, 8);
  c.problem.scores = kBoth;
  Random random(1);
  fill_inputs(c, random);
  c.arrays.weight.assign(4, 1.0f);
  return c;
}

Case given_case() {
  Case c = good_case();
  c.problem.lambda_pos = c.problem.lambda_neg = FNCE_LAMBDA_ROW;
  c.problem.lambda_pos_source = c.problem.lambda_neg_source = c.problem.permutation_source = FNCE_GIVEN;
  Random random(2);
  fill_inputs(c, random);
  return c;
}

using Spoil = std::function<void(fnce_args&)>;

struct Wrong {
  Spoil spoil;
  std::vector<std::string> words;
};

void check_all(const Case& good, fnce_status status, const std::vector<Wrong>& wrongs) {
  for (const Wrong& wrong : wrongs) {
    INFO("field " << wrong.words[0]);
    check_args_refused(good, wrong.spoil, status, wrong.words);
  }
}

struct Number {
  const char* name;
  float fnce_args::*value;
  const float* fnce_args::*pointer;
};

const std::vector<Number> kPositive{{"temperature", &fnce_args::temperature, &fnce_args::temperature_pointer},
                                    {"alpha_pos", &fnce_args::alpha_pos, &fnce_args::alpha_pos_pointer},
                                    {"alpha_neg", &fnce_args::alpha_neg, &fnce_args::alpha_neg_pointer}};
const std::vector<Number> kShifts{{"shift_pos", &fnce_args::shift_pos, &fnce_args::shift_pos_pointer},
                                  {"shift_neg", &fnce_args::shift_neg, &fnce_args::shift_neg_pointer}};

struct BadValue {
  float value;
  const char* text;
};
const std::vector<BadValue> kNotFinite{{NAN, "nan"}, {kInfinity, "inf"}, {-kInfinity, "-inf"}};
const std::vector<BadValue> kNotPositive{{NAN, "nan"},  {kInfinity, "inf"}, {-kInfinity, "-inf"},
                                         {0.0f, " 0;"}, {-0.0f, "-0"},      {-0.25f, "-0.25"}};

// The sentence names the field by value and by pointer, whose memory only the host can read.
void check_number(const Number& number, const BadValue& bad) {
  INFO(number.name << " = " << bad.value);
  check_args_refused(good_case(), [&](fnce_args& a) { a.*number.value = bad.value; }, FNCE_INVALID_ARGUMENT,
                     {std::string("args.") + number.name, bad.text, "finite"});
  if (!device().host_memory()) return;  // it gives NaN there: cuda_contract_test.cpp
  const Buffer<float> memory(std::vector<float>{bad.value});
  check_args_refused(good_case(), [&](fnce_args& a) { a.*number.pointer = memory.get(); }, FNCE_INVALID_ARGUMENT,
                     {std::string(number.name) + "_pointer", bad.text, "finite"});
}

}  // namespace

TEST_CASE("errors: inputs that are missing") {
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[](fnce_args& a) { a.x_q = nullptr; }, {"args.x_q ", "NULL", "[n,d]"}},
             {[](fnce_args& a) { a.x_k = nullptr; }, {"args.x_k ", "NULL", "[n,d]"}},
             {[](fnce_args& a) { a.queue = nullptr; }, {"args.queue ", "NULL", "[k,d]"}}});
  check_all(given_case(), FNCE_INVALID_ARGUMENT,
            {{[](fnce_args& a) { a.lambda_pos = nullptr; }, {"args.lambda_pos ", "NULL", "FNCE_GIVEN"}},
             {[](fnce_args& a) { a.lambda_neg = nullptr; }, {"args.lambda_neg ", "NULL", "FNCE_GIVEN"}},
             {[](fnce_args& a) { a.permutation = nullptr; }, {"args.permutation ", "NULL", "FNCE_GIVEN"}}});
}

TEST_CASE("errors: inputs that are given but not declared") {
  const Buffer<float> lambda(std::vector<float>(32 * 8, 0.5f));
  const Buffer<int32_t> permutation(std::vector<int32_t>(32, 0));
  for (const int32_t preset : {FNCE_PRESET_FT, FNCE_PRESET_MOCO}) {
    check_all(
        good_case(preset), FNCE_INVALID_ARGUMENT,
        {{[&](fnce_args& a) { a.lambda_pos = lambda.get(); }, {"args.lambda_pos ", "not NULL", "FNCE_GIVEN"}},
         {[&](fnce_args& a) { a.lambda_neg = lambda.get(); }, {"args.lambda_neg ", "not NULL", "FNCE_GIVEN"}},
         {[&](fnce_args& a) { a.permutation = permutation.get(); }, {"args.permutation ", "not NULL", "FNCE_GIVEN"}}});
  }
}

TEST_CASE("errors: misaligned inputs and outputs") {
  check_all(
      given_case(), FNCE_INVALID_ARGUMENT,
      {{[](fnce_args& a) { a.x_q = misaligned(static_cast<const float*>(a.x_q)); },
        {"args.x_q ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.x_k = misaligned(static_cast<const float*>(a.x_k)); },
        {"args.x_k ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.queue = misaligned(static_cast<const float*>(a.queue)); },
        {"args.queue ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.lambda_pos = misaligned(a.lambda_pos); }, {"args.lambda_pos ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.lambda_neg = misaligned(a.lambda_neg); }, {"args.lambda_neg ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.permutation = misaligned(a.permutation); },
        {"args.permutation ", "0x", "multiples of 4"}}});
  check_all(
      good_case(), FNCE_INVALID_ARGUMENT,
      {{[](fnce_args& a) { a.weight = misaligned(a.weight); }, {"args.weight ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.loss = misaligned(a.loss); }, {"args.loss ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.dq = misaligned(static_cast<float*>(a.dq)); }, {"args.dq ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.dk = misaligned(static_cast<float*>(a.dk)); }, {"args.dk ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.dtemperature_rows = misaligned(a.dtemperature_rows); }, {"args.dtemperature_rows ", "0x"}},
       {[](fnce_args& a) { a.dtemperature = misaligned(a.dtemperature); }, {"args.dtemperature ", "0x"}},
       {[](fnce_args& a) { a.mixed.pos = misaligned(a.mixed.pos); }, {"args.mixed.pos ", "0x", "multiples of 4"}},
       {[](fnce_args& a) { a.mixed.neg_count = misaligned(a.mixed.neg_count); },
        {"args.mixed.neg_count ", "multiples of 8"}},
       {[](fnce_args& a) { a.mixed.neg_mean = misaligned(a.mixed.neg_mean); }, {"args.mixed.neg_mean ", "0x"}},
       {[](fnce_args& a) { a.mixed.neg_variance = misaligned(a.mixed.neg_variance); },
        {"args.mixed.neg_variance ", "0x"}},
       {[](fnce_args& a) { a.mixed.neg_min = misaligned(a.mixed.neg_min); }, {"args.mixed.neg_min ", "0x"}},
       {[](fnce_args& a) { a.mixed.neg_max = misaligned(a.mixed.neg_max); }, {"args.mixed.neg_max ", "0x"}},
       {[](fnce_args& a) { a.mixed.neg_log_mean_exp = misaligned(a.mixed.neg_log_mean_exp); },
        {"args.mixed.neg_log_mean_exp ", "0x"}},
       {[](fnce_args& a) { a.mixed.n_greater = misaligned(a.mixed.n_greater); },
        {"args.mixed.n_greater ", "multiples of 8"}},
       {[](fnce_args& a) { a.mixed.n_greater_equal = misaligned(a.mixed.n_greater_equal); },
        {"args.mixed.n_greater_equal ", "multiples of 8"}},
       {[](fnce_args& a) { a.mixed.entropy = misaligned(a.mixed.entropy); }, {"args.mixed.entropy ", "0x"}},
       {[](fnce_args& a) { a.mixed.dq_norm = misaligned(a.mixed.dq_norm); }, {"args.mixed.dq_norm ", "0x"}},
       {[](fnce_args& a) { a.unmixed.neg_max = misaligned(a.unmixed.neg_max); }, {"args.unmixed.neg_max ", "0x"}},
       {[](fnce_args& a) { a.unmixed.n_greater = misaligned(a.unmixed.n_greater); },
        {"args.unmixed.n_greater ", "multiples of 8"}}});
}

TEST_CASE("errors: misaligned pointers to numbers") {
  const Buffer<uint64_t> memory(std::vector<uint64_t>{0, 0});
  auto* const floats = reinterpret_cast<const float*>(memory.get());
  check_all(
      good_case(), FNCE_INVALID_ARGUMENT,
      {{[&](fnce_args& a) { a.temperature_pointer = misaligned(floats); },
        {"args.temperature_pointer ", "multiples of 4"}},
       {[&](fnce_args& a) { a.alpha_pos_pointer = misaligned(floats); }, {"args.alpha_pos_pointer ", "multiples of 4"}},
       {[&](fnce_args& a) { a.shift_pos_pointer = misaligned(floats); }, {"args.shift_pos_pointer ", "multiples of 4"}},
       {[&](fnce_args& a) { a.alpha_neg_pointer = misaligned(floats); }, {"args.alpha_neg_pointer ", "multiples of 4"}},
       {[&](fnce_args& a) { a.shift_neg_pointer = misaligned(floats); }, {"args.shift_neg_pointer ", "multiples of 4"}},
       {[&](fnce_args& a) { a.seed_pointer = misaligned(static_cast<const uint64_t*>(memory.get())); },
        {"args.seed_pointer ", "multiples of 8"}},
       {[&](fnce_args& a) { a.offset_pointer = misaligned(static_cast<const uint64_t*>(memory.get())); },
        {"args.offset_pointer ", "multiples of 8"}}});
}

TEST_CASE("errors: numbers that are not positive or not finite, by value and by pointer") {
  for (const Number& number : kPositive)
    for (const BadValue& bad : kNotPositive) check_number(number, bad);
  for (const Number& number : kShifts)
    for (const BadValue& bad : kNotFinite) check_number(number, bad);
  for (const BadValue& bad : kNotPositive) {
    INFO("epsilon = " << bad.value);
    check_args_refused(good_case(), [&](fnce_args& a) { a.epsilon = bad.value; }, FNCE_INVALID_ARGUMENT,
                       {"args.epsilon ", bad.text, "finite"});
  }
}

TEST_CASE("errors: numbers that the call does not use are not judged") {
  // Without mixing there are no draws; given lambdas need no alpha.
  for (const Case& c : {good_case(FNCE_PRESET_MOCO), given_case()}) {
    Case odd = c;
    odd.numbers.alpha_pos = -1;
    odd.numbers.alpha_neg = NAN;
    odd.numbers.shift_pos = kInfinity;
    CHECK(same_bits(run_loss(odd), run_loss(c)));
  }
}

TEST_CASE("errors: the offset of the draws is a multiple of 4") {
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[](fnce_args& a) { a.offset = 2; }, {"args.offset ", "2", "multiples of 4"}},
             {[](fnce_args& a) { a.offset = UINT64_MAX; }, {"args.offset ", "18446744073709551615", "multiples of 4"}},
             {[](fnce_args& a) { a.offset_increment = 5; }, {"args.offset_increment ", "5", "multiples of 4"}}});
  if (!device().host_memory()) return;
  const Buffer<uint64_t> odd(std::vector<uint64_t>{7});
  check_args_refused(good_case(), [&](fnce_args& a) { a.offset_pointer = odd.get(); }, FNCE_INVALID_ARGUMENT,
                     {"offset_pointer ", "7", "multiples of 4"});
}

TEST_CASE("errors: statistics that the problem does not gather, or that do not exist") {
  Case bare = good_case();
  bare.problem.scores = FNCE_SCORES_NONE;
  const Buffer<float> rows(4);
  const Buffer<int64_t> counts(4);
  check_all(bare, FNCE_INVALID_ARGUMENT,
            {{[&](fnce_args& a) { a.mixed.pos = rows.get(); }, {"args.mixed", "problem.scores", "FNCE_SCORES_MIXED"}},
             {[&](fnce_args& a) { a.mixed.dq_norm = rows.get(); }, {"args.mixed", "FNCE_SCORES_MIXED"}},
             {[&](fnce_args& a) { a.mixed.n_greater = counts.get(); }, {"args.mixed", "FNCE_SCORES_MIXED"}},
             {[&](fnce_args& a) { a.unmixed.neg_mean = rows.get(); }, {"args.unmixed", "FNCE_SCORES_UNMIXED"}}});
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[&](fnce_args& a) { a.unmixed.entropy = rows.get(); }, {"args.unmixed.entropy ", "NULL"}},
             {[&](fnce_args& a) { a.unmixed.dq_norm = rows.get(); }, {"args.unmixed.dq_norm ", "NULL"}}});
  CHECK(rows.untouched());
  CHECK(counts.untouched());
}

TEST_CASE("errors: checks and reserved fields of the arguments") {
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[](fnce_args& a) { a.checks = 4; }, {"args.checks ", "4", "FNCE_CHECK_PERMUTATION"}},
             {[](fnce_args& a) { a.checks = -1; }, {"args.checks ", "-1", "FNCE_CHECK_PERMUTATION"}}});
  check_all(good_case(), FNCE_UNSUPPORTED,
            {{[](fnce_args& a) { a.reserved = 3; }, {"args.reserved ", "3", "0"}},
             {[](fnce_args& a) { a.reserved2 = -4; }, {"args.reserved2 ", "-4", "0"}},
             {[](fnce_args& a) { a.mixed.reserved[4] = &a; }, {"args.mixed.reserved ", "NULL"}},
             {[](fnce_args& a) { a.unmixed.reserved[0] = &a; }, {"args.unmixed.reserved ", "NULL"}}});
}

TEST_CASE("errors: columns beyond the queue that the problem does not declare") {
  const Buffer<int64_t> ids(std::vector<int64_t>(32, 0));
  const Buffer<float> floats(std::vector<float>(32 * 8, 0.0f));
  const char* why = "NULL, since the problem does not declare it";
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[&](fnce_args& a) { a.x_c = floats.get(); }, {"args.x_c ", "not NULL", why}},
             {[&](fnce_args& a) { a.query_ids = ids.get(); }, {"args.query_ids ", "not NULL", why}},
             {[&](fnce_args& a) { a.column_ids = ids.get(); }, {"args.column_ids ", "not NULL", why}},
             {[&](fnce_args& a) { a.batch_ids = ids.get(); }, {"args.batch_ids ", "not NULL", why}},
             {[&](fnce_args& a) { a.column_bias = floats.get(); }, {"args.column_bias ", "not NULL", why}},
             {[&](fnce_args& a) { a.batch_bias = floats.get(); }, {"args.batch_bias ", "not NULL", why}}});
  Case margin_ignored = good_case();
  margin_ignored.numbers.margin = NAN;  // the problem declares none
  CHECK_NOTHROW(run_loss(margin_ignored));
}

TEST_CASE("errors: columns beyond the queue that the problem declares") {
  Case c = good_case();
  c.problem.batch_columns = 5;
  c.problem.id_mask = c.problem.column_bias = c.problem.margin_mask = 1;
  c.numbers.margin = 0.5f;
  c.want.log_sum_exp = true;
  Random random(3);
  fill_columns(c, random);
  CHECK_NOTHROW(run_loss(c));
  const Buffer<float> rows(4);
  const char *ids = "problem.id_mask is 1", *bias = "problem.column_bias is 1", *features = "[batch_columns,d]";
  check_all(c, FNCE_INVALID_ARGUMENT,
            {{[](fnce_args& a) { a.x_c = nullptr; }, {"args.x_c ", "NULL", features}},
             {[](fnce_args& a) { a.query_ids = nullptr; }, {"args.query_ids ", "NULL", ids}},
             {[](fnce_args& a) { a.column_ids = nullptr; }, {"args.column_ids ", "NULL", ids}},
             {[](fnce_args& a) { a.batch_ids = nullptr; }, {"args.batch_ids ", "NULL", ids}},
             {[](fnce_args& a) { a.column_bias = nullptr; }, {"args.column_bias ", "NULL", bias}},
             {[](fnce_args& a) { a.batch_bias = nullptr; }, {"args.batch_bias ", "NULL", bias}},
             {[](fnce_args& a) { a.x_c = misaligned(static_cast<const float*>(a.x_c)); }, {"args.x_c ", "0x"}},
             {[](fnce_args& a) { a.query_ids = misaligned(a.query_ids); }, {"args.query_ids ", "0x"}},
             {[](fnce_args& a) { a.column_ids = misaligned(a.column_ids); }, {"args.column_ids ", "0x"}},
             {[](fnce_args& a) { a.batch_ids = misaligned(a.batch_ids); }, {"args.batch_ids ", "0x"}},
             {[](fnce_args& a) { a.column_bias = misaligned(a.column_bias); }, {"args.column_bias ", "0x"}},
             {[](fnce_args& a) { a.batch_bias = misaligned(a.batch_bias); }, {"args.batch_bias ", "0x"}},
             {[](fnce_args& a) { a.log_sum_exp = misaligned(a.log_sum_exp); }, {"args.log_sum_exp ", "0x"}},
             {[](fnce_args& a) { a.margin = NAN; }, {"args.margin ", "nan", "numbers"}},
             {[&](fnce_args& a) { a.mixed.entropy = rows.get(); }, {"args.mixed.entropy ", "problem.column_bias"}}});
  CHECK(rows.untouched());
}

TEST_CASE("errors: a given permutation that is no bijection, on request, is refused or gives NaN") {
  for (const auto& [place, value] : {std::pair{3, 5}, {31, 0}, {0, -1}, {7, 32}, {9, INT32_MAX}, {2, INT32_MIN}}) {
    Case c = given_case();
    for (size_t j = 0; j < 32; ++j) c.arrays.permutation[j] = static_cast<int32_t>((j + 1) % 32);
    c.arrays.permutation[static_cast<size_t>(place)] = value == 0 ? 5 : value;
    INFO("pi(" << place << ") = " << c.arrays.permutation[static_cast<size_t>(place)]);
    if (!device().host_memory()) {
      // The host cannot read it: the results say so.
      c.numbers.checks = FNCE_CHECK_PERMUTATION;
      const Outputs out = run_loss(c);
      CHECK(std::isnan(out.loss[0]));
      for (const auto* gradient : {&out.dq, &out.dk})
        for (const float x : *gradient) CHECK(std::isnan(x));
      continue;
    }
    check_args_refused(
        c, [](fnce_args& a) { a.checks = FNCE_CHECK_PERMUTATION; }, FNCE_INVALID_ARGUMENT,
        {"permutation", std::to_string(c.arrays.permutation[static_cast<size_t>(place)]), "once"}, true);
  }
  Case good = given_case();
  good.numbers.checks = FNCE_CHECK_PERMUTATION;
  CHECK_NOTHROW(run_loss(good));
}

TEST_CASE("errors: pointers in good order pass their check, which changes no bit") {
  for (const Case& c : {good_case(FNCE_PRESET_MOCO), good_case(), given_case()}) {
    Case checked = c;
    checked.numbers.checks = FNCE_CHECK_POINTERS;
    checked.numbers_by_pointer = true;
    CHECK(same_bits(run_loss(c), run_loss(checked)));
  }
}

TEST_CASE("errors: struct sizes of the arguments") {
  constexpr size_t kFirstSize = 504;  // of fnce_args in the first version
  const std::string first = std::to_string(kFirstSize);
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[](fnce_args& a) { a.struct_size = 0; }, {"args.struct_size ", " 0;", first}},
             {[](fnce_args& a) { a.struct_size = kFirstSize - 8; },
              {"args.struct_size ", std::to_string(kFirstSize - 8), first}}});
  struct Newer {
    fnce_args args;
    unsigned char tail[24];
  } newer{};
  const Case c = good_case();
  const Plan plan(c.problem);
  const Call call(c);
  newer.args = call.args;
  newer.args.struct_size = sizeof newer;
  const Buffer<unsigned char> workspace = make_workspace(plan);
  newer.tail[23] = 0x80;
  check_refused(fnce_loss(plan.get(), &newer.args, workspace.get(), workspace.bytes(), nullptr), FNCE_UNSUPPORTED,
                {"args", std::to_string(sizeof(fnce_args) + 23)});
  CHECK(call.outputs_untouched());
  newer.tail[23] = 0;
  FNCE_REQUIRE_OK(fnce_loss(plan.get(), &newer.args, workspace.get(), workspace.bytes(), nullptr));
  fnce_args a;
  std::memset(&a, 0x5A, sizeof a);
  const fnce_args before = a;
  check_refused(fnce_args_init(nullptr, sizeof a), FNCE_INVALID_ARGUMENT, {"args", "NULL"});
  check_refused(fnce_args_init(&a, kFirstSize - 8), FNCE_INVALID_ARGUMENT, {"size ", std::to_string(kFirstSize - 8)});
  CHECK(std::memcmp(&a, &before, sizeof a) == 0);
}

TEST_CASE("errors: plan, arguments and workspace of fnce_loss") {
  const Case c = good_case();
  const Plan plan(c.problem);
  const Call call(c);
  const size_t bytes = plan.workspace_bytes();
  REQUIRE(bytes > 0);
  const Buffer<unsigned char> workspace(static_cast<int64_t>(bytes + FNCE_ALIGNMENT));
  check_refused(fnce_loss(nullptr, &call.args, workspace.get(), bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"plan ", "NULL"});
  check_refused(fnce_loss(plan.get(), nullptr, workspace.get(), bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"args ", "NULL"});
  check_refused(fnce_loss(plan.get(), &call.args, nullptr, bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"workspace ", "NULL"});
  check_refused(fnce_loss(plan.get(), &call.args, workspace.get() + 4, bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"workspace ", "0x", "256"});
  for (const size_t less : {bytes - 1, size_t{0}})
    check_refused(fnce_loss(plan.get(), &call.args, workspace.get(), less, nullptr), FNCE_WORKSPACE_TOO_SMALL,
                  {"workspace_bytes ", std::to_string(less), std::to_string(bytes)});
  CHECK(call.outputs_untouched());
  CHECK(workspace.untouched());
  FNCE_REQUIRE_OK(fnce_loss(plan.get(), &call.args, workspace.get(), bytes, nullptr));
}
