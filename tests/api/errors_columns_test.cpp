// Wrong arguments of fnce_columns_backward, and of the steps where there is a margin: the status, the sentence, nothing
// written.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/refusal.h"
#include "support/shards.h"

namespace {

using namespace support;

// Everything that fnce_columns_backward needs, in good order.
struct Backward {
  Backward() : c(make()), plan(c.problem), call(c), workspace(make_workspace(plan)) {
    FNCE_REQUIRE_OK(fnce_loss(plan.get(), &call.args, workspace.get(), workspace.bytes(), device().stream()));
    FNCE_REQUIRE_OK(fnce_prep(plan.get(), &call.args, &anchors, workspace.get(), workspace.bytes(), device().stream()));
  }
  static Case make() {
    Case c = make_case(FNCE_PRESET_FT, 4, 32, 8);
    c.problem.batch_columns = 5;
    c.problem.margin_mask = c.problem.id_mask = c.problem.column_bias = 1;
    c.numbers.margin = 3;
    c.want.log_sum_exp = true;
    c.arrays.weight.assign(4, 1.0f);
    Random random(4);
    fill_inputs(c, random);
    fill_columns(c, random);
    return c;
  }
  // What is refused: the members as they are now.
  void refused(fnce_status expected, const std::vector<std::string>& words) const {
    check_refused(fnce_columns_backward(no_plan ? nullptr : plan.get(), args, given, log_sum_exp, upstream, count, out,
                                        memory, bytes, device().stream()),
                  expected, words);
    CHECK(dx_c.untouched());
  }

  Case c;
  Plan plan;
  Call call;
  Buffer<unsigned char> workspace;
  Buffer<float> anchor{4 * 8}, pos{4}, one{std::vector<float>(4, 1.0f)}, dx_c{5 * 8};
  fnce_anchors anchors{anchor.get(), pos.get(), nullptr, {}};
  bool no_plan = false;
  const fnce_args* args = &call.args;
  const fnce_anchors* given = nullptr;
  const float *log_sum_exp = call.args.log_sum_exp, *upstream = one.get();
  int64_t count = 4;
  void *out = dx_c.get(), *memory = workspace.get();
  size_t bytes = workspace.bytes();
};

void check_backward(const std::function<void(Backward&)>& spoil, fnce_status expected,
                    const std::vector<std::string>& words) {
  Backward b;
  spoil(b);
  b.refused(expected, words);
}

}  // namespace

TEST_CASE("errors: fnce_columns_backward") {
  const auto wrong = [](const std::function<void(Backward&)>& spoil, const std::vector<std::string>& words) {
    check_backward(spoil, FNCE_INVALID_ARGUMENT, words);
  };
  wrong([](Backward& b) { b.no_plan = true; }, {"plan ", "NULL"});
  wrong([](Backward& b) { b.args = nullptr; }, {"args ", "NULL"});
  wrong([](Backward& b) { b.log_sum_exp = nullptr; }, {"log_sum_exp ", "NULL"});
  wrong([](Backward& b) { b.log_sum_exp = misaligned(b.log_sum_exp); }, {"log_sum_exp ", "0x"});
  wrong([](Backward& b) { b.upstream = nullptr; }, {"upstream ", "NULL"});
  wrong([](Backward& b) { b.upstream = misaligned(b.upstream); }, {"upstream ", "0x"});
  for (const int64_t count : {int64_t{0}, int64_t{-1}, int64_t{3}, int64_t{5}, INT64_MIN})
    wrong([count](Backward& b) { b.count = count; }, {"upstream_count ", std::to_string(count), "1", "4"});
  wrong([](Backward& b) { b.out = nullptr; }, {"dx_c ", "NULL"});
  wrong([](Backward& b) { b.out = misaligned(static_cast<float*>(b.out)); }, {"dx_c ", "0x"});
  wrong([](Backward& b) { b.memory = nullptr; }, {"workspace ", "NULL"});
  wrong([](Backward& b) { b.memory = b.workspace.get() + 4; }, {"workspace ", "0x", "256"});
  check_backward([](Backward& b) { --b.bytes; }, FNCE_WORKSPACE_TOO_SMALL, {"workspace_bytes "});
  check_backward([](Backward& b) { b.bytes = 0; }, FNCE_WORKSPACE_TOO_SMALL, {"workspace_bytes ", " 0;"});
}

TEST_CASE("errors: arguments and anchors of fnce_columns_backward") {
  // Wrong whether anchors are given or not, and then those that only features or only anchors need.
  const auto wrong = [](bool given, const std::function<void(Backward&)>& spoil,
                        const std::vector<std::string>& words) {
    check_backward(
        [&](Backward& b) {
          if (given) b.given = &b.anchors;
          spoil(b);
        },
        FNCE_INVALID_ARGUMENT, words);
  };
  for (const bool given : {false, true}) {
    wrong(given, [](Backward& b) { b.call.args.x_c = nullptr; }, {"args.x_c ", "NULL"});
    wrong(given, [](Backward& b) { b.call.args.query_ids = nullptr; }, {"args.query_ids ", "NULL"});
    wrong(given, [](Backward& b) { b.call.args.batch_ids = nullptr; }, {"args.batch_ids ", "NULL"});
    wrong(given, [](Backward& b) { b.call.args.batch_bias = nullptr; }, {"args.batch_bias ", "NULL"});
    wrong(given, [](Backward& b) { b.call.args.temperature = 0; }, {"args.temperature ", " 0;"});
    wrong(given, [](Backward& b) { b.call.args.margin = NAN; }, {"args.margin ", "nan"});
    wrong(given, [](Backward& b) { b.call.args.weight = misaligned(b.call.args.weight); }, {"args.weight ", "0x"});
  }
  wrong(false, [](Backward& b) { b.call.args.x_q = nullptr; }, {"args.x_q ", "NULL"});
  wrong(false, [](Backward& b) { b.call.args.x_k = nullptr; }, {"args.x_k ", "NULL"});
  wrong(true, [](Backward& b) { b.anchors.anchor = nullptr; }, {"anchors.anchor ", "NULL"});
  wrong(true, [](Backward& b) { b.anchors.pos = nullptr; }, {"anchors.pos ", "NULL"});
  wrong(true, [](Backward& b) { b.anchors.pos = misaligned(b.anchors.pos); }, {"anchors.pos ", "0x"});
  check_backward(
      [](Backward& b) {
        b.given = &b.anchors;
        b.anchors.reserved[1] = &b;
      },
      FNCE_UNSUPPORTED, {"anchors.reserved ", "NULL"});
}

TEST_CASE("errors: fnce_columns_backward without batch columns") {
  Case c = make_case(FNCE_PRESET_FT, 4, 32, 8);
  Random random(4);
  fill_inputs(c, random);
  const Plan plan(c.problem);
  const Call call(c);
  const Buffer<unsigned char> workspace = make_workspace(plan);
  const Buffer<float> rows(std::vector<float>(4, 0.0f)), dx_c(8);
  check_refused(fnce_columns_backward(plan.get(), &call.args, nullptr, rows.get(), rows.get(), 1, dx_c.get(),
                                      workspace.get(), workspace.bytes(), device().stream()),
                FNCE_INVALID_ARGUMENT, {"problem.batch_columns ", " 0"});
  CHECK(dx_c.untouched());
}

TEST_CASE("errors: a margin compares with the positives of fnce_prep and fnce_partial") {
  Backward b;
  b.anchors.pos = nullptr;
  check_refused(fnce_prep(b.plan.get(), b.args, &b.anchors, b.workspace.get(), b.bytes, device().stream()),
                FNCE_INVALID_ARGUMENT, {"anchors.pos ", "NULL", "problem.margin_mask"});
  const Buffer<unsigned char> partial(static_cast<int64_t>(layout_of(b.plan).bytes));
  check_refused(fnce_partial(b.plan.get(), b.args, &b.anchors, partial.get(), partial.bytes(), b.workspace.get(),
                             b.bytes, device().stream()),
                FNCE_INVALID_ARGUMENT, {"anchors.pos ", "NULL", "problem.margin_mask"});
  CHECK(partial.untouched());
}
