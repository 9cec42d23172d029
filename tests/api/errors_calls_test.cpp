// Wrong arguments of every other call: the steps, statistics alone, scale, queue push, stateless calls, inspection.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/refusal.h"
#include "support/shards.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

// Everything that the calls of section 8 need, in good order.
struct Steps {
  Steps() : c(make()), plan(c.problem), call(c), layout(layout_of(plan)) {}
  static Case make() {
    Case c = make_case(FNCE_PRESET_FT, 4, 32, 8);
    c.problem.scores = kBoth;
    Random random(1);
    fill_inputs(c, random);
    return c;
  }
  fnce_anchors anchors() const { return {anchor.get(), pos.get(), unmixed_pos.get(), {}}; }
  size_t partial_bytes() const { return layout.bytes; }

  Case c;
  Plan plan;
  Call call;
  fnce_layout layout;
  size_t bytes = plan.workspace_bytes();
  Buffer<unsigned char> workspace{static_cast<int64_t>(bytes)};
  Buffer<unsigned char> partial{static_cast<int64_t>(layout.bytes)};
  Buffer<float> anchor{4 * 8}, pos{4}, unmixed_pos{4};
};

}  // namespace

TEST_CASE("errors: fnce_plan_create, fnce_plan_workspace, fnce_plan_destroy, fnce_plan_describe") {
  const Case c = Steps::make();
  check_refused(fnce_plan_create(&c.problem, nullptr), FNCE_INVALID_ARGUMENT, {"plan ", "NULL"});
  fnce_plan* plan = nullptr;
  check_refused(fnce_plan_create(nullptr, &plan), FNCE_INVALID_ARGUMENT, {"problem ", "NULL"});
  CHECK(plan == nullptr);
  const Plan good(c.problem);
  size_t bytes = 77;
  check_refused(fnce_plan_workspace(nullptr, &bytes), FNCE_INVALID_ARGUMENT, {"plan ", "NULL"});
  check_refused(fnce_plan_workspace(good.get(), nullptr), FNCE_INVALID_ARGUMENT, {"bytes ", "NULL"});
  CHECK(bytes == 77);
  fnce_plan_destroy(nullptr);
  CHECK(std::string(fnce_plan_describe(nullptr)).empty());
}

TEST_CASE("errors: fnce_prep") {
  Steps s;
  fnce_anchors good = s.anchors();
  const auto prep = [&](const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors, void* workspace,
                        size_t bytes) { return fnce_prep(plan, args, anchors, workspace, bytes, device().stream()); };
  check_refused(prep(nullptr, &s.call.args, &good, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"plan ", "NULL"});
  check_refused(prep(s.plan.get(), nullptr, &good, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"args ", "NULL"});
  check_refused(prep(s.plan.get(), &s.call.args, nullptr, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"anchors ", "NULL"});
  check_refused(prep(s.plan.get(), &s.call.args, &good, nullptr, s.bytes), FNCE_INVALID_ARGUMENT,
                {"workspace ", "NULL"});
  check_refused(prep(s.plan.get(), &s.call.args, &good, s.workspace.get(), s.bytes - 1), FNCE_WORKSPACE_TOO_SMALL,
                {"workspace_bytes ", std::to_string(s.bytes)});
  const struct {
    fnce_anchors anchors;
    const char* field;
    const char* value;
  } wrongs[] = {
      {{nullptr, good.pos, good.unmixed_pos, {}}, "anchors.anchor ", "NULL"},
      {{good.anchor, nullptr, good.unmixed_pos, {}}, "anchors.pos ", "NULL"},
      {{good.anchor, good.pos, nullptr, {}}, "anchors.unmixed_pos ", "NULL"},
      {{misaligned(static_cast<float*>(good.anchor)), good.pos, good.unmixed_pos, {}}, "anchors.anchor ", "0x"},
      {{good.anchor, misaligned(good.pos), good.unmixed_pos, {}}, "anchors.pos ", "0x"},
      {{good.anchor, good.pos, misaligned(good.unmixed_pos), {}}, "anchors.unmixed_pos ", "0x"}};
  for (const auto& wrong : wrongs)
    check_refused(prep(s.plan.get(), &s.call.args, &wrong.anchors, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                  {wrong.field, wrong.value});
  fnce_anchors reserved = good;
  reserved.reserved[1] = &reserved;
  check_refused(prep(s.plan.get(), &s.call.args, &reserved, s.workspace.get(), s.bytes), FNCE_UNSUPPORTED,
                {"anchors.reserved ", "NULL"});
  fnce_args bad = s.call.args;
  bad.x_k = nullptr;
  check_refused(prep(s.plan.get(), &bad, &good, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"args.x_k ", "NULL"});
  bad = s.call.args;
  bad.alpha_pos = -2;
  check_refused(prep(s.plan.get(), &bad, &good, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"args.alpha_pos ", "-2"});
  CHECK((s.anchor.untouched() && s.pos.untouched() && s.unmixed_pos.untouched()));
}

TEST_CASE("errors: fnce_partial and fnce_partial_layout") {
  Steps s;
  const fnce_anchors good = s.anchors();
  const auto partial = [&](const fnce_args* args, const fnce_anchors* anchors, void* out, size_t out_bytes,
                           void* workspace, size_t bytes) {
    return fnce_partial(s.plan.get(), args, anchors, out, out_bytes, workspace, bytes, device().stream());
  };
  const size_t size = s.partial_bytes();
  check_refused(fnce_partial(nullptr, &s.call.args, &good, s.partial.get(), size, s.workspace.get(), s.bytes, nullptr),
                FNCE_INVALID_ARGUMENT, {"plan ", "NULL"});
  check_refused(partial(nullptr, &good, s.partial.get(), size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"args ", "NULL"});
  check_refused(partial(&s.call.args, nullptr, s.partial.get(), size, s.workspace.get(), s.bytes),
                FNCE_INVALID_ARGUMENT, {"anchors ", "NULL"});
  check_refused(partial(&s.call.args, &good, nullptr, size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"partial ", "NULL"});
  check_refused(partial(&s.call.args, &good, s.partial.get() + 8, size, s.workspace.get(), s.bytes),
                FNCE_INVALID_ARGUMENT, {"partial ", "0x", "256"});
  check_refused(partial(&s.call.args, &good, s.partial.get(), size - 1, s.workspace.get(), s.bytes),
                FNCE_WORKSPACE_TOO_SMALL, {"partial_bytes ", std::to_string(size - 1), std::to_string(size)});
  check_refused(partial(&s.call.args, &good, s.partial.get(), size, s.workspace.get(), s.bytes - 1),
                FNCE_WORKSPACE_TOO_SMALL, {"workspace_bytes ", std::to_string(s.bytes)});
  const fnce_anchors no_pos{good.anchor, nullptr, good.unmixed_pos, {}};
  check_refused(partial(&s.call.args, &no_pos, s.partial.get(), size, s.workspace.get(), s.bytes),
                FNCE_INVALID_ARGUMENT, {"anchors.pos ", "NULL"});
  fnce_args bad = s.call.args;
  bad.queue = nullptr;
  check_refused(partial(&bad, &good, s.partial.get(), size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"args.queue ", "NULL"});
  bad = s.call.args;
  bad.temperature = 0;
  check_refused(partial(&bad, &good, s.partial.get(), size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"args.temperature ", "0"});
  CHECK(s.partial.untouched());
  fnce_layout layout;
  std::memset(&layout, 0x5A, sizeof layout);
  const fnce_layout before = layout;
  check_refused(fnce_partial_layout(nullptr, &layout, sizeof layout), FNCE_INVALID_ARGUMENT, {"plan ", "NULL"});
  check_refused(fnce_partial_layout(s.plan.get(), nullptr, sizeof layout), FNCE_INVALID_ARGUMENT, {"layout ", "NULL"});
  check_refused(fnce_partial_layout(s.plan.get(), &layout, sizeof layout - 8), FNCE_INVALID_ARGUMENT,
                {"size ", std::to_string(sizeof layout - 8)});
  CHECK(std::memcmp(&layout, &before, sizeof layout) == 0);
}

TEST_CASE("errors: fnce_partial_rows") {
  Steps s;
  const size_t size = s.partial_bytes();
  const Buffer<unsigned char> out(std::vector<unsigned char>(size, 7));
  const std::vector<unsigned char> before = out.values();
  const auto rows = [&](const fnce_plan* from, const void* partial, int64_t first, const fnce_plan* plan, void* to,
                        size_t bytes) {
    return fnce_partial_rows(from, partial, first, plan, to, bytes, device().stream());
  };
  const fnce_plan* plan = s.plan.get();
  void* partial = s.partial.get();
  check_refused(rows(nullptr, partial, 0, plan, out.get(), size), FNCE_INVALID_ARGUMENT, {"partial_plan ", "NULL"});
  check_refused(rows(plan, partial, 0, nullptr, out.get(), size), FNCE_INVALID_ARGUMENT, {"plan ", "NULL"});
  check_refused(rows(plan, nullptr, 0, plan, out.get(), size), FNCE_INVALID_ARGUMENT, {"partial ", "NULL"});
  check_refused(rows(plan, partial, 0, plan, nullptr, size), FNCE_INVALID_ARGUMENT, {"out ", "NULL"});
  check_refused(rows(plan, partial, 0, plan, partial, size), FNCE_INVALID_ARGUMENT, {"out ", "partial"});
  check_refused(rows(plan, partial, 1, plan, out.get(), size), FNCE_INVALID_ARGUMENT, {"first_row ", "1", "0"});
  check_refused(rows(plan, partial, -1, plan, out.get(), size), FNCE_INVALID_ARGUMENT, {"first_row ", "-1"});
  check_refused(rows(plan, partial, 0, plan, out.get(), size - 1), FNCE_WORKSPACE_TOO_SMALL,
                {"partial_bytes ", std::to_string(size - 1)});
  fnce_problem other = s.c.problem;
  other.d += 1;
  check_refused(rows(plan, partial, 0, Plan(other).get(), out.get(), size), FNCE_INVALID_ARGUMENT,
                {"problem.d ", std::to_string(other.d)});
  other = s.c.problem;
  other.scores ^= FNCE_SCORES_UNMIXED;
  check_refused(rows(plan, partial, 0, Plan(other).get(), out.get(), size), FNCE_INVALID_ARGUMENT,
                {"problem.scores ", std::to_string(other.scores)});
  CHECK(out.holds(before));
}

TEST_CASE("errors: fnce_merge and fnce_finish") {
  Steps s;
  const size_t size = s.partial_bytes();
  const Buffer<unsigned char> other(std::vector<unsigned char>(size, 0));
  const void* two[] = {other.get(), other.get()};
  const void* with_null[] = {other.get(), nullptr};
  const void* odd[] = {other.get() + 8, other.get()};
  const void* alias[] = {other.get(), s.partial.get()};
  const auto merge = [&](const void* const* partials, int32_t count, void* out, size_t bytes) {
    return fnce_merge(s.plan.get(), partials, count, out, bytes, device().stream());
  };
  check_refused(fnce_merge(nullptr, two, 2, s.partial.get(), size, nullptr), FNCE_INVALID_ARGUMENT, {"plan ", "NULL"});
  check_refused(merge(nullptr, 2, s.partial.get(), size), FNCE_INVALID_ARGUMENT, {"partials ", "NULL"});
  check_refused(merge(two, 0, s.partial.get(), size), FNCE_INVALID_ARGUMENT, {"count ", "0", "1"});
  check_refused(merge(two, -3, s.partial.get(), size), FNCE_INVALID_ARGUMENT, {"count ", "-3"});
  check_refused(merge(with_null, 2, s.partial.get(), size), FNCE_INVALID_ARGUMENT, {"partials[1] ", "NULL"});
  check_refused(merge(odd, 2, s.partial.get(), size), FNCE_INVALID_ARGUMENT, {"partials[0] ", "0x", "256"});
  check_refused(merge(two, 2, nullptr, size), FNCE_INVALID_ARGUMENT, {"out ", "NULL"});
  check_refused(merge(two, 2, s.partial.get() + 4, size), FNCE_INVALID_ARGUMENT, {"out ", "0x", "256"});
  check_refused(merge(alias, 2, s.partial.get(), size), FNCE_INVALID_ARGUMENT, {"out ", "partials[1]"});
  check_refused(merge(two, 2, s.partial.get(), size - 1), FNCE_WORKSPACE_TOO_SMALL,
                {"partial_bytes ", std::to_string(size)});
  CHECK(s.partial.untouched());

  const auto finish = [&](const fnce_args* args, const void* partial, size_t bytes, void* workspace, size_t ws_bytes) {
    return fnce_finish(s.plan.get(), args, partial, bytes, workspace, ws_bytes, device().stream());
  };
  check_refused(fnce_finish(nullptr, &s.call.args, other.get(), size, s.workspace.get(), s.bytes, nullptr),
                FNCE_INVALID_ARGUMENT, {"plan ", "NULL"});
  check_refused(finish(nullptr, other.get(), size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"args ", "NULL"});
  check_refused(finish(&s.call.args, nullptr, size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"partial ", "NULL"});
  check_refused(finish(&s.call.args, other.get() + 4, size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"partial ", "0x"});
  check_refused(finish(&s.call.args, other.get(), size - 1, s.workspace.get(), s.bytes), FNCE_WORKSPACE_TOO_SMALL,
                {"partial_bytes ", std::to_string(size)});
  check_refused(finish(&s.call.args, other.get(), size, nullptr, s.bytes), FNCE_INVALID_ARGUMENT,
                {"workspace ", "NULL"});
  fnce_args bad = s.call.args;
  bad.dq = misaligned(static_cast<float*>(bad.dq));
  check_refused(finish(&bad, other.get(), size, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT, {"args.dq ", "0x"});
  CHECK(s.call.outputs_untouched());
}

TEST_CASE("errors: fnce_scores") {
  Steps s;
  const StatisticsBuffers out(4, false);
  const fnce_score_buffers good = out.pointers();
  const auto scores = [&](const fnce_args* args, const fnce_score_buffers* to, void* workspace, size_t bytes) {
    return fnce_scores(s.plan.get(), args, to, workspace, bytes, device().stream());
  };
  check_refused(fnce_scores(nullptr, &s.call.args, &good, s.workspace.get(), s.bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"plan ", "NULL"});
  check_refused(scores(nullptr, &good, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT, {"args ", "NULL"});
  check_refused(scores(&s.call.args, nullptr, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT, {"out ", "NULL"});
  check_refused(scores(&s.call.args, &good, s.workspace.get(), s.bytes - 1), FNCE_WORKSPACE_TOO_SMALL,
                {"workspace_bytes ", std::to_string(s.bytes)});
  fnce_score_buffers wrong = good;
  wrong.entropy = s.pos.get();
  check_refused(scores(&s.call.args, &wrong, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"out.entropy ", "NULL"});
  wrong = good;
  wrong.dq_norm = s.pos.get();
  check_refused(scores(&s.call.args, &wrong, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"out.dq_norm ", "NULL"});
  wrong = good;
  wrong.n_greater = misaligned(wrong.n_greater);
  check_refused(scores(&s.call.args, &wrong, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT,
                {"out.n_greater ", "0x"});
  fnce_args bad = s.call.args;
  bad.temperature = -1;
  check_refused(scores(&bad, &good, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT, {"args.temperature ", "-1"});
  bad = s.call.args;
  bad.x_q = nullptr;
  check_refused(scores(&bad, &good, s.workspace.get(), s.bytes), FNCE_INVALID_ARGUMENT, {"args.x_q ", "NULL"});
  CHECK(out.untouched());
}

TEST_CASE("errors: fnce_run and fnce_run_workspace") {
  Steps s;
  size_t bytes = 5;
  check_refused(fnce_run_workspace(nullptr, &bytes), FNCE_INVALID_ARGUMENT, {"problem ", "NULL"});
  CHECK(bytes == 5);
  check_refused(fnce_run_workspace(&s.c.problem, nullptr), FNCE_INVALID_ARGUMENT, {"bytes ", "NULL"});
  check_refused(fnce_run(nullptr, &s.call.args, s.workspace.get(), s.bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"problem ", "NULL"});
  check_refused(fnce_run(&s.c.problem, nullptr, s.workspace.get(), s.bytes, nullptr), FNCE_INVALID_ARGUMENT,
                {"args ", "NULL"});
  check_refused(fnce_run(&s.c.problem, &s.call.args, s.workspace.get(), s.bytes - 1, nullptr), FNCE_WORKSPACE_TOO_SMALL,
                {"workspace_bytes ", std::to_string(s.bytes)});
  CHECK(s.call.outputs_untouched());
}

TEST_CASE("errors: inspection") {
  Steps s;
  std::vector<float> lambda(4 * 8, 0.5f);
  std::vector<int32_t> permutation(32, 7);
  fnce_problem& p = s.c.problem;
  const fnce_args* a = &s.c.numbers;
  check_refused(fnce_sample_lambda_pos(nullptr, a, lambda.data(), 1), FNCE_INVALID_ARGUMENT, {"problem ", "NULL"});
  check_refused(fnce_sample_lambda_pos(&p, nullptr, lambda.data(), 1), FNCE_INVALID_ARGUMENT, {"args ", "NULL"});
  check_refused(fnce_sample_lambda_pos(&p, a, nullptr, 1), FNCE_INVALID_ARGUMENT, {"out ", "NULL"});
  check_refused(fnce_sample_lambda_pos(&p, a, lambda.data(), 2), FNCE_INVALID_ARGUMENT, {"count ", "2", "1"});
  check_refused(fnce_sample_lambda_neg(&p, a, lambda.data(), 0), FNCE_INVALID_ARGUMENT, {"count ", "0", "1"});
  check_refused(fnce_sample_lambda_neg(&p, a, nullptr, 1), FNCE_INVALID_ARGUMENT, {"out ", "NULL"});
  check_refused(fnce_permutation(&p, a, nullptr, 32), FNCE_INVALID_ARGUMENT, {"out ", "NULL"});
  check_refused(fnce_permutation(&p, a, permutation.data(), 31), FNCE_INVALID_ARGUMENT, {"count ", "31", "32"});
  fnce_args bad = *a;
  bad.alpha_pos = 0;
  check_refused(fnce_sample_lambda_pos(&p, &bad, lambda.data(), 1), FNCE_INVALID_ARGUMENT, {"args.alpha_pos ", "0"});
  bad = *a;
  bad.offset = 6;
  check_refused(fnce_permutation(&p, &bad, permutation.data(), 32), FNCE_INVALID_ARGUMENT, {"args.offset ", "6"});
  p.lambda_pos = p.lambda_neg = FNCE_LAMBDA_ROW;
  p.lambda_pos_source = p.lambda_neg_source = p.permutation_source = FNCE_GIVEN;
  check_refused(fnce_sample_lambda_pos(&p, a, lambda.data(), 4), FNCE_INVALID_ARGUMENT,
                {"problem.lambda_pos", "FNCE_SAMPLED"});
  check_refused(fnce_sample_lambda_neg(&p, a, lambda.data(), 32), FNCE_INVALID_ARGUMENT,
                {"problem.lambda_neg", "FNCE_SAMPLED"});
  check_refused(fnce_permutation(&p, a, permutation.data(), 32), FNCE_INVALID_ARGUMENT,
                {"problem.permutation_source", "FNCE_SAMPLED"});
  const Case moco = make_case(FNCE_PRESET_MOCO, 4, 32, 8);
  check_refused(fnce_sample_lambda_pos(&moco.problem, a, lambda.data(), 1), FNCE_INVALID_ARGUMENT, {"lambda_pos"});
  check_refused(fnce_sample_lambda_neg(&moco.problem, a, lambda.data(), 1), FNCE_INVALID_ARGUMENT, {"lambda_neg"});
  check_refused(fnce_permutation(&moco.problem, a, permutation.data(), 32), FNCE_INVALID_ARGUMENT, {"lambda_neg"});
  CHECK(lambda == std::vector<float>(4 * 8, 0.5f));
  CHECK(permutation == std::vector<int32_t>(32, 7));
  int32_t count = 9;
  check_refused(fnce_device_count(0, &count), FNCE_INVALID_ARGUMENT, {"device ", "0", "FNCE_CPU"});
  check_refused(fnce_device_count(FNCE_CPU, nullptr), FNCE_INVALID_ARGUMENT, {"count ", "NULL"});
  CHECK(count == 9);
  const int32_t threads = fnce_get_threads();
  for (const int32_t wrong : {0, -1, 1025})
    check_refused(fnce_set_threads(wrong), FNCE_INVALID_ARGUMENT, {"threads ", std::to_string(wrong), "1 .. 1024"});
  CHECK(fnce_get_threads() == threads);
}

TEST_CASE("errors: the last sentence belongs to its thread and survives calls that succeed") {
  check_refused(fnce_set_threads(-5), FNCE_INVALID_ARGUMENT, {"-5"});
  const std::string mine = fnce_last_error();
  std::string at_first, theirs;
  std::thread([&] {
    at_first = fnce_last_error();
    fnce_set_threads(-6);
    theirs = fnce_last_error();
  }).join();
  CHECK(at_first.empty());
  CHECK(theirs.find("-6") != std::string::npos);
  int32_t count = 0;
  FNCE_REQUIRE_OK(fnce_device_count(FNCE_CPU, &count));
  CHECK(mine == fnce_last_error());
}
