// Every field of fnce_problem that can be wrong: the status, the sentence, nothing written.
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/refusal.h"

namespace {

using namespace support;

Case good_case(int32_t preset = FNCE_PRESET_FT) {
  Case c = make_case(preset, 4, 32, 8);
  Random random(1);
  fill_inputs(c, random);
  return c;
}

// The size of fnce_problem in the first version.
constexpr size_t kFirstSize = 160;

using Spoil = void (*)(fnce_problem&);

struct Wrong {
  Spoil spoil;
  std::vector<std::string> words;
};

void check_all(const Case& good, fnce_status status, const std::vector<Wrong>& wrongs) {
  for (const Wrong& wrong : wrongs) {
    INFO("field " << wrong.words[0]);
    check_problem_refused(good, wrong.spoil, status, wrong.words);
  }
}

struct Choice {
  const char* name;
  int32_t fnce_problem::*field;
  int32_t above;  // the first value beyond the last enumerator
};

}  // namespace

TEST_CASE("errors: sizes and offsets of the problem") {
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[](fnce_problem& p) { p.n = 0; }, {"problem.n ", " 0;", "1 .. 2147483647"}},
             {[](fnce_problem& p) { p.n = -7; }, {"problem.n ", "-7", "1 .. 2147483647"}},
             {[](fnce_problem& p) { p.n = 2147483648; }, {"problem.n ", "2147483648", "1 .. 2147483647"}},
             {[](fnce_problem& p) { p.k = -1; }, {"problem.k ", "-1", "0 .. 2147483647"}},
             {[](fnce_problem& p) { p.k = 2147483648; }, {"problem.k ", "2147483648", "0 .. 2147483647"}},
             {[](fnce_problem& p) { p.k = INT64_MAX; }, {"problem.k ", "9223372036854775807"}},
             {[](fnce_problem& p) { p.d = 0; }, {"problem.d ", " 0;", "1 .. 1048576"}},
             {[](fnce_problem& p) { p.d = 1048577; }, {"problem.d ", "1048577", "1 .. 1048576"}},
             {[](fnce_problem& p) { p.d = INT64_MIN; }, {"problem.d ", "-9223372036854775808"}},
             {[](fnce_problem& p) { p.k_global = -1; }, {"problem.k_global ", "-1"}},
             {[](fnce_problem& p) { p.k_global = 31; }, {"problem.k_global ", "31", "32 .. 2147483647"}},
             {[](fnce_problem& p) { p.k_global = 2147483648; }, {"problem.k_global ", "2147483648"}},
             {[](fnce_problem& p) { p.row_offset = -1; }, {"problem.row_offset ", "-1"}},
             {[](fnce_problem& p) { p.row_offset = INT64_MAX; }, {"problem.row_offset ", "9223372036854775807"}},
             {[](fnce_problem& p) { p.column_offset = -16; }, {"problem.column_offset ", "-16"}},
             {[](fnce_problem& p) { p.k_global = 64, p.perm_block = 16, p.column_offset = 48; },
              {"problem.column_offset ", "48", "0 .. 32"}},
             {[](fnce_problem& p) { p.column_offset = INT64_MAX; }, {"9223372036854775807"}},
             {[](fnce_problem& p) { p.perm_block = -16; }, {"problem.perm_block ", "-16"}},
             {[](fnce_problem& p) { p.perm_block = 24; }, {"problem.perm_block ", "24", "multiple of 16"}},
             {[](fnce_problem& p) { p.perm_block = 1; }, {"problem.perm_block ", " 1;", "multiple of 16"}}});
}

TEST_CASE("errors: every choice below and above its values") {
  const std::vector<Choice> choices{{"problem.device", &fnce_problem::device, 3},
                                    {"problem.feature_type", &fnce_problem::feature_type, 4},
                                    {"problem.queue_type", &fnce_problem::queue_type, 4},
                                    {"problem.gradient_type", &fnce_problem::gradient_type, 4},
                                    {"problem.precision", &fnce_problem::precision, 2},
                                    {"problem.normalize", &fnce_problem::normalize, 2},
                                    {"problem.lambda_pos", &fnce_problem::lambda_pos, 5},
                                    {"problem.lambda_pos_source", &fnce_problem::lambda_pos_source, 2},
                                    {"problem.renormalize_pos", &fnce_problem::renormalize_pos, 2},
                                    {"problem.lambda_neg", &fnce_problem::lambda_neg, 5},
                                    {"problem.lambda_neg_source", &fnce_problem::lambda_neg_source, 2},
                                    {"problem.renormalize_neg", &fnce_problem::renormalize_neg, 2},
                                    {"problem.permutation_source", &fnce_problem::permutation_source, 2},
                                    {"problem.columns", &fnce_problem::columns, 3},
                                    {"problem.anchor", &fnce_problem::anchor, 2},
                                    {"problem.reduction", &fnce_problem::reduction, 3},
                                    {"problem.scores", &fnce_problem::scores, 4},
                                    {"problem.threads", &fnce_problem::threads, 1025}};
  for (const Choice& choice : choices) {
    for (const int32_t value :
         {choice.above, -1, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
      INFO(choice.name << " = " << value);
      check_problem_refused(good_case(), [&](fnce_problem& p) { p.*choice.field = value; }, FNCE_INVALID_ARGUMENT,
                            {std::string(choice.name) + " ", std::to_string(value), "allowed"});
    }
  }
  for (const char* type : {"device", "feature_type", "queue_type", "gradient_type"}) {
    INFO(type << " = 0");
    check_problem_refused(good_case(),
                          [&](fnce_problem& p) {
                            if (std::strcmp(type, "device") == 0) p.device = 0;
                            if (std::strcmp(type, "feature_type") == 0) p.feature_type = 0;
                            if (std::strcmp(type, "queue_type") == 0) p.queue_type = 0;
                            if (std::strcmp(type, "gradient_type") == 0) p.gradient_type = 0;
                          },
                          FNCE_INVALID_ARGUMENT, {std::string("problem.") + type + " ", " 0;", "allowed"});
  }
}

TEST_CASE("errors: choices that exclude each other") {
  check_all(
      good_case(FNCE_PRESET_FT), FNCE_INVALID_ARGUMENT,
      {{[](fnce_problem& p) { p.columns = FNCE_COLUMNS_QUEUE; }, {"problem.columns ", "0", "FNCE_COLUMNS_MIXED"}},
       {[](fnce_problem& p) { p.perm_block = 16, p.permutation_source = FNCE_GIVEN; },
        {"problem.perm_block ", "16", "FNCE_GIVEN"}},
       {[](fnce_problem& p) { p.k_global = 64, p.permutation_source = FNCE_GIVEN; },
        {"problem.k_global ", "64", "FNCE_GIVEN"}},
       {[](fnce_problem& p) { p.k_global = 64; }, {"problem.perm_block ", " 0;", "multiple of 16"}},
       {[](fnce_problem& p) { p.k_global = 128, p.perm_block = 32, p.column_offset = 16; },
        {"problem.column_offset ", "16", "problem.perm_block"}},
       {[](fnce_problem& p) { p.k_global = 64, p.perm_block = 48; }, {"problem.k ", "32", "problem.perm_block"}}});
  check_all(
      good_case(FNCE_PRESET_MOCO), FNCE_INVALID_ARGUMENT,
      {{[](fnce_problem& p) { p.columns = FNCE_COLUMNS_UNION; }, {"problem.columns ", "2", "FNCE_COLUMNS_QUEUE"}},
       {[](fnce_problem& p) { p.renormalize_pos = 1; }, {"problem.renormalize_pos ", "1", "problem.lambda_pos"}},
       {[](fnce_problem& p) { p.renormalize_neg = 1; }, {"problem.renormalize_neg ", "1", "problem.lambda_neg"}},
       {[](fnce_problem& p) { p.lambda_pos_source = FNCE_GIVEN; }, {"problem.lambda_pos_source ", "1", "FNCE_SAMPLED"}},
       {[](fnce_problem& p) { p.lambda_neg_source = FNCE_GIVEN; }, {"problem.lambda_neg_source ", "1", "FNCE_SAMPLED"}},
       {[](fnce_problem& p) { p.permutation_source = FNCE_GIVEN; },
        {"problem.permutation_source ", "1", "FNCE_SAMPLED"}}});
}

TEST_CASE("errors: combinations that are allowed") {
  Case c = good_case(FNCE_PRESET_MOCO);
  c.problem.columns = FNCE_COLUMNS_MIXED;  // without mixing it is Z
  Case queue = c;
  queue.problem.columns = FNCE_COLUMNS_QUEUE;
  CHECK(same_bits(run_loss(c), run_loss(queue)));
  c.problem.k_global = 1000;  // a shard without mixing needs no blocks
  c.problem.column_offset = 17;
  CHECK(same_bits(run_loss(c), run_loss(queue)));
  Case last = good_case(FNCE_PRESET_FT);  // the last shard may end in a short block
  last.problem.perm_block = 48;
  last.problem.column_offset = 96;
  last.problem.k_global = 128;
  CHECK_NOTHROW(run_loss(last));
}

TEST_CASE("errors: columns beyond the queue") {
  check_all(good_case(), FNCE_INVALID_ARGUMENT,
            {{[](fnce_problem& p) { p.form = 3; }, {"problem.form ", "3", "FNCE_FORM_SYMMETRIC"}},
             {[](fnce_problem& p) { p.form = -1; }, {"problem.form ", "-1", "FNCE_FORM_INFO_NCE"}},
             {[](fnce_problem& p) { p.id_mask = 5; }, {"problem.id_mask ", "5", "0, 1"}},
             {[](fnce_problem& p) { p.column_bias = -2; }, {"problem.column_bias ", "-2", "0, 1"}},
             {[](fnce_problem& p) { p.margin_mask = 2; }, {"problem.margin_mask ", "2", "0, 1"}},
             {[](fnce_problem& p) { p.batch_columns = -1; }, {"problem.batch_columns ", "-1", "0 .. 2147483647"}},
             {[](fnce_problem& p) { p.batch_columns = 2147483648; },
              {"problem.batch_columns ", "2147483648", "0 .. 2147483647"}}});
  check_all(good_case(), FNCE_UNSUPPORTED,
            {{[](fnce_problem& p) { p.reserved = 9; }, {"problem.reserved ", "9", "0"}}});
  if (device().kind() == FNCE_CPU) return;
  check_all(make_case(FNCE_PRESET_MOCO, 4, 0, 8), FNCE_UNSUPPORTED,
            {{[](fnce_problem& p) { p.form = FNCE_FORM_SYMMETRIC; }, {"problem.form ", "2", "FNCE_CUDA"}}});
}

TEST_CASE("errors: a problem of the first version has no columns beyond the queue") {
  fnce_problem older = good_case().problem;
  older.struct_size = kFirstSize;
  older.batch_columns = -77;  // behind the end of that version's struct: not read
  fnce_plan* plan = nullptr;
  FNCE_REQUIRE_OK(fnce_plan_create(&older, &plan));
  fnce_plan_destroy(plan);
}

TEST_CASE("errors: devices that are not there") {
  int32_t count = -1;
  FNCE_REQUIRE_OK(fnce_device_count(FNCE_CUDA, &count));
  REQUIRE(count >= 0);
  Case c = good_case();
  const std::string index = std::to_string(count);
  check_problem_refused(c, [count](fnce_problem& p) { p.device = FNCE_CUDA, p.device_index = count; }, FNCE_NO_DEVICE,
                        {"device"});
  check_problem_refused(c, [](fnce_problem& p) { p.device = FNCE_CPU, p.device_index = 1; }, FNCE_INVALID_ARGUMENT,
                        {"problem.device_index ", " 1;", "0"});
  check_problem_refused(c, [](fnce_problem& p) { p.device_index = -1; }, FNCE_INVALID_ARGUMENT,
                        {"problem.device_index ", "-1", "0"});
}

TEST_CASE("errors: struct sizes of the problem") {
  const Case c = good_case();
  const std::string first = std::to_string(kFirstSize);
  check_problem_refused(c, [](fnce_problem& p) { p.struct_size = 0; }, FNCE_INVALID_ARGUMENT,
                        {"problem.struct_size ", " 0;", first});
  check_problem_refused(c, [](fnce_problem& p) { p.struct_size = kFirstSize - 4; }, FNCE_INVALID_ARGUMENT,
                        {"problem.struct_size ", std::to_string(kFirstSize - 4), first});
  struct Newer {
    fnce_problem problem;
    unsigned char tail[32];
  } newer{};
  newer.problem = c.problem;
  newer.problem.struct_size = sizeof newer;
  fnce_plan* plan = nullptr;
  FNCE_REQUIRE_OK(fnce_plan_create(&newer.problem, &plan));
  fnce_plan_destroy(plan);
  for (const size_t place : {size_t{0}, sizeof newer.tail - 1}) {
    Newer set = newer;
    set.tail[place] = 1;
    plan = nullptr;
    check_refused(fnce_plan_create(&set.problem, &plan), FNCE_UNSUPPORTED,
                  {"problem", std::to_string(sizeof(fnce_problem) + place), "0"});
    CHECK(plan == nullptr);
  }
}

TEST_CASE("errors: fnce_problem_init") {
  fnce_problem p;
  std::memset(&p, 0x5A, sizeof p);
  const fnce_problem before = p;
  check_refused(fnce_problem_init(nullptr, sizeof p, FNCE_PRESET_FT), FNCE_INVALID_ARGUMENT, {"problem", "NULL"});
  check_refused(fnce_problem_init(&p, kFirstSize - 1, FNCE_PRESET_FT), FNCE_INVALID_ARGUMENT,
                {"size ", std::to_string(kFirstSize - 1)});
  check_refused(fnce_problem_init(&p, 0, FNCE_PRESET_FT), FNCE_INVALID_ARGUMENT, {"size ", " 0;"});
  check_refused(fnce_problem_init(&p, sizeof p, 3), FNCE_INVALID_ARGUMENT, {"preset ", "3", "FNCE_PRESET_FT"});
  check_refused(fnce_problem_init(&p, sizeof p, -1), FNCE_INVALID_ARGUMENT, {"preset ", "-1"});
  CHECK(std::memcmp(&p, &before, sizeof p) == 0);
  // A newer caller's larger struct: exactly its size is written, the unknown tail is zero.
  std::vector<unsigned char> bytes(sizeof p + 64, 0x5A);
  FNCE_REQUIRE_OK(fnce_problem_init(reinterpret_cast<fnce_problem*>(bytes.data()), sizeof p + 40, FNCE_PRESET_MOCO));
  for (size_t i = sizeof p; i < bytes.size(); ++i) CHECK(bytes[i] == (i < sizeof p + 40 ? 0 : 0x5A));
}

TEST_CASE("errors: the presets are what the header says") {
  fnce_problem p;
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    FNCE_REQUIRE_OK(fnce_problem_init(&p, sizeof p, preset));
    const int32_t granularity = preset == FNCE_PRESET_MOCO ? FNCE_LAMBDA_NONE
                                : preset == FNCE_PRESET_FT ? FNCE_LAMBDA_CALL
                                                           : FNCE_LAMBDA_ELEMENT;
    CHECK(p.struct_size == sizeof p);
    CHECK((p.n == 0 && p.k == 0 && p.d == 0));
    CHECK((p.device == FNCE_CPU && p.device_index == 0));
    CHECK((p.feature_type == FNCE_FLOAT32 && p.queue_type == FNCE_FLOAT32 && p.gradient_type == FNCE_FLOAT32));
    CHECK((p.lambda_pos == granularity && p.lambda_neg == granularity));
    CHECK((p.lambda_pos_source == FNCE_SAMPLED && p.lambda_neg_source == FNCE_SAMPLED));
    CHECK(p.permutation_source == FNCE_SAMPLED);
    CHECK((p.normalize == 1 && p.renormalize_pos == 0 && p.renormalize_neg == 0));
    CHECK((p.columns == FNCE_COLUMNS_QUEUE) == (preset == FNCE_PRESET_MOCO));
    CHECK((p.anchor == FNCE_ANCHOR_MIXED && p.reduction == FNCE_REDUCTION_MEAN && p.scores == FNCE_SCORES_NONE));
    CHECK((p.form == FNCE_FORM_INFO_NCE && p.batch_columns == 0));
    CHECK((p.id_mask == 0 && p.column_bias == 0 && p.margin_mask == 0));
  }
  fnce_args a;
  FNCE_REQUIRE_OK(fnce_args_init(&a, sizeof a));
  CHECK((a.temperature == 0.07f && a.alpha_pos == 2.0f && a.alpha_neg == 1.6f));
  CHECK((a.shift_pos == 1.0f && a.shift_neg == 0.0f && a.epsilon == 1e-12f));
  CHECK((a.seed == 0 && a.offset == 0 && a.offset_increment == 0));
  CHECK((!a.x_c && !a.query_ids && !a.column_ids && !a.batch_ids && !a.column_bias && !a.batch_bias));
  CHECK((a.margin == 0 && !a.log_sum_exp));
}

TEST_CASE("errors: the largest problem is planned or refused, never a crash") {
  Case c = make_case(FNCE_PRESET_FT_ELEMENTWISE, 2147483647, 2147483647, 1 << 20);
  c.problem.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
  fnce_plan* plan = nullptr;
  const fnce_status status = fnce_plan_create(&c.problem, &plan);
  if (status != FNCE_OK) {
    check_refused(status, status, {});
    CHECK(status != FNCE_INTERNAL_ERROR);
    return;
  }
  size_t bytes = 0;
  FNCE_REQUIRE_OK(fnce_plan_workspace(plan, &bytes));
  CHECK(bytes > (size_t{1} << 52));  // n*d floats alone: the size has not wrapped around
  fnce_plan_destroy(plan);
}
