// Wrong problems and arguments of the symmetric calls, and other calls with a plan of pairs: the status, the sentence,
// nothing written.
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/problem.h"
#include "support/refusal.h"

namespace {

using namespace support;

const char* const kOnCpu = "the symmetric loss runs on the CPU";

fnce_problem problem_of_pairs() {
  fnce_problem p = make_case(FNCE_PRESET_MOCO, 4, 0, 8).problem;
  p.form = FNCE_FORM_SYMMETRIC;
  p.id_mask = p.column_bias = 1;
  return p;
}

// Everything that both calls need, in good order.
struct Calls {
  Calls() : plan(problem_of_pairs()), workspace(make_workspace(plan)) {
    FNCE_REQUIRE_OK(fnce_pairs_init(&pairs, sizeof pairs));
    pairs.x_a = pairs.x_b = features.get();
    pairs.a_ids = pairs.b_ids = ids.get();
    pairs.a_bias = pairs.b_bias = bias.get();
    pairs.a_log_sum_exp = pairs.b_log_sum_exp = sums.get();
    pairs.da = gradient.get();
    pairs.dtemperature = pairs.loss = number.get();
  }
  void refused(fnce_status expected, const std::vector<std::string>& words, bool backward) const {
    const fnce_pairs* given = no_pairs ? nullptr : &pairs;
    const fnce_status status =
        backward ? fnce_symmetric_backward(no_plan ? nullptr : plan.get(), given, upstream, count, memory, bytes,
                                           device().stream())
                 : fnce_symmetric(no_plan ? nullptr : plan.get(), given, memory, bytes, device().stream());
    check_refused(status, expected, words);
    CHECK((number.untouched() && gradient.untouched() && sums.untouched()));
  }

  Plan plan;
  Buffer<unsigned char> workspace;
  Buffer<float> features{std::vector<float>(4 * 8, 1.0f)}, bias{std::vector<float>(4, 0.0f)}, number{1},
      gradient{4 * 8}, sums{4}, one{std::vector<float>(4, 1.0f)};
  Buffer<int64_t> ids{std::vector<int64_t>{1, 2, 3, 4}};
  fnce_pairs pairs;
  bool no_plan = false, no_pairs = false;
  const float* upstream = one.get();
  int64_t count = 1;
  void* memory = workspace.get();
  size_t bytes = workspace.bytes();
};

enum Which { kForward = 1, kBackward = 2, kBoth = 3 };

void wrong(const std::function<void(Calls&)>& spoil, const std::vector<std::string>& words, Which which = kBoth,
           fnce_status expected = FNCE_INVALID_ARGUMENT) {
  for (const bool backward : {false, true}) {
    if (!(which & (backward ? kBackward : kForward))) continue;
    Calls calls;
    spoil(calls);
    calls.refused(expected, words, backward);
  }
}

}  // namespace

TEST_CASE("errors: symmetric problems") {
  const auto refused = [](const std::function<void(fnce_problem&)>& spoil, const std::vector<std::string>& words) {
    fnce_problem p = problem_of_pairs();
    spoil(p);
    fnce_plan* plan = nullptr;
    check_refused(fnce_plan_create(&p, &plan), FNCE_INVALID_ARGUMENT, words);
    CHECK(plan == nullptr);
  };
  const std::string allowed = "allowed: 0 where problem.form is FNCE_FORM_SYMMETRIC";
  refused([](fnce_problem& p) { p.k = 5; }, {"problem.k is 5", allowed});
  refused([](fnce_problem& p) { p.k_global = 5; }, {"problem.k_global is 5", allowed});
  refused([](fnce_problem& p) { p.batch_columns = 4; }, {"problem.batch_columns is 4", allowed});
  refused([](fnce_problem& p) { p.lambda_pos = 1; }, {"problem.lambda_pos is 1", allowed});
  refused([](fnce_problem& p) { p.lambda_neg = 1, p.columns = 1; }, {"problem.lambda_neg is 1", allowed});
  refused([](fnce_problem& p) { p.margin_mask = 1; }, {"problem.margin_mask is 1", allowed});
  refused([](fnce_problem& p) { p.scores = 1; }, {"problem.scores is 1", allowed});
  refused([](fnce_problem& p) { p.form = 3; }, {"problem.form is 3", "FNCE_FORM_SYMMETRIC (2)"});
}

TEST_CASE("errors: fnce_symmetric and its backward pass") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  wrong([](Calls& c) { c.no_plan = true; }, {"plan ", "NULL"});
  wrong([](Calls& c) { c.no_pairs = true; }, {"pairs ", "NULL"});
  wrong([](Calls& c) { c.pairs.struct_size = 0; }, {"pairs.struct_size is 0"});
  wrong([](Calls& c) { c.pairs.x_a = nullptr; }, {"pairs.x_a ", "NULL"});
  wrong([](Calls& c) { c.pairs.x_b = nullptr; }, {"pairs.x_b ", "NULL"});
  wrong([](Calls& c) { c.pairs.x_b = misaligned(c.features.get()); }, {"pairs.x_b ", "0x"});
  wrong([](Calls& c) { c.pairs.weight = misaligned(c.bias.get()); }, {"pairs.weight ", "0x"});
  wrong([](Calls& c) { c.pairs.a_ids = nullptr; }, {"pairs.a_ids ", "id_mask is 1"});
  wrong([](Calls& c) { c.pairs.b_ids = nullptr; }, {"pairs.b_ids ", "id_mask is 1"});
  wrong([](Calls& c) { c.pairs.a_bias = nullptr; }, {"pairs.a_bias ", "column_bias is 1"});
  wrong([](Calls& c) { c.pairs.b_bias = misaligned(c.bias.get()); }, {"pairs.b_bias ", "0x"});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float tau : {0.0f, -1.0f, nan, std::numeric_limits<float>::infinity()})
    wrong([&](Calls& c) { c.pairs.temperature = tau; }, {"pairs.temperature is ", "> 0"});
  wrong([](Calls& c) { c.pairs.temperature_pointer = c.bias.get(); }, {"pairs.*temperature_pointer is 0", "> 0"});
  wrong([](Calls& c) { c.pairs.epsilon = 0; }, {"pairs.epsilon is 0"});
  wrong([](Calls& c) { c.pairs.checks = 1; }, {"pairs.checks is 1"});
  wrong([](Calls& c) { c.pairs.reserved = 1; }, {"pairs.reserved is 1"}, kBoth, FNCE_UNSUPPORTED);
  wrong([](Calls& c) { c.pairs.loss = misaligned(c.pairs.loss); }, {"pairs.loss ", "0x"});
  wrong([](Calls& c) { c.pairs.da = misaligned(c.gradient.get()); }, {"pairs.da ", "0x"});
  wrong([](Calls& c) { c.pairs.db = misaligned(c.gradient.get()); }, {"pairs.db ", "0x"});
  wrong([](Calls& c) { c.pairs.dtemperature = misaligned(c.number.get()); }, {"pairs.dtemperature ", "0x"});
  wrong([](Calls& c) { c.pairs.a_log_sum_exp = misaligned(c.sums.get()); }, {"pairs.a_log_sum_exp ", "0x"});
  wrong([](Calls& c) { c.pairs.a_log_sum_exp = nullptr; }, {"pairs.a_log_sum_exp ", "NULL"}, kBackward);
  wrong([](Calls& c) { c.pairs.b_log_sum_exp = nullptr; }, {"pairs.b_log_sum_exp ", "NULL"}, kBackward);
  wrong([](Calls& c) { c.upstream = nullptr; }, {"upstream ", "NULL"}, kBackward);
  for (const int64_t count : {0, 3, 5, -1})
    wrong([=](Calls& c) { c.count = count; }, {"upstream_count is ", "1, 4"}, kBackward);
  wrong([](Calls& c) { c.memory = nullptr; }, {"workspace ", "NULL"});
  wrong([](Calls& c) { c.bytes -= 1; }, {"workspace_bytes is "}, kBoth, FNCE_WORKSPACE_TOO_SMALL);
}

TEST_CASE("errors: a plan of pairs and the other calls") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  Calls c;
  fnce_args args;
  FNCE_REQUIRE_OK(fnce_args_init(&args, sizeof args));
  const fnce_score_buffers scores = {};
  const fnce_anchors anchors = {};
  fnce_layout layout;
  float* out = c.number.get();
  const void* partials[] = {c.memory};
  const fnce_plan* plan = c.plan.get();
  const fnce_problem problem = problem_of_pairs();
  for (const fnce_status status :
       {fnce_loss(plan, &args, c.memory, c.bytes, nullptr), fnce_run(&problem, &args, c.memory, c.bytes, nullptr),
        fnce_scores(plan, &args, &scores, c.memory, c.bytes, nullptr),
        fnce_prep(plan, &args, &anchors, c.memory, c.bytes, nullptr),
        fnce_partial(plan, &args, &anchors, c.memory, c.bytes, c.memory, c.bytes, nullptr),
        fnce_merge(plan, partials, 1, c.memory, c.bytes, nullptr),
        fnce_partial_rows(plan, c.memory, 0, plan, c.memory, c.bytes, nullptr),
        fnce_finish(plan, &args, c.memory, c.bytes, c.memory, c.bytes, nullptr),
        fnce_columns_backward(plan, &args, nullptr, out, out, 1, out, c.memory, c.bytes, nullptr),
        fnce_partial_layout(plan, &layout, sizeof layout)})
    check_refused(status, FNCE_INVALID_ARGUMENT, {"problem.form is 2 (FNCE_FORM_SYMMETRIC)", "fnce_symmetric"});
  const Plan other(make_case(FNCE_PRESET_MOCO, 4, 2, 8).problem);
  check_refused(fnce_partial_rows(plan, c.memory, 0, other.get(), c.memory, c.bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"problem.form is 2 (FNCE_FORM_SYMMETRIC)", "fnce_symmetric"});
  check_refused(fnce_symmetric(other.get(), &c.pairs, c.memory, c.bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"problem.form is 0", "FNCE_FORM_SYMMETRIC (2)"});
}
