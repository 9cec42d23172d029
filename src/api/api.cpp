// Every entry point of the C API: check, look up, call. No arithmetic lives here.
#include <flashnce/flashnce.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "api/cache.h"
#include "core/args.h"
#include "core/inspect.h"
#include "core/layout.h"
#include "core/limits.h"
#include "core/pairs.h"
#include "core/plan.h"
#include "core/plan_info.h"
#include "core/push.h"
#include "core/status.h"
#include "core/threads.h"
#include "core/types.h"
#include "core/versioned.h"
#include "registry.h"

#define FNCE_TEXT(x) #x
#define FNCE_VERSION_TEXT(a, b, c) FNCE_TEXT(a) "." FNCE_TEXT(b) "." FNCE_TEXT(c)

using fnce::Args;
using fnce::CallKind;
using fnce::guard;

namespace {

constexpr const char* kVersion = FNCE_VERSION_TEXT(FNCE_VERSION_MAJOR, FNCE_VERSION_MINOR, FNCE_VERSION_PATCH);

const fnce_plan& require_plan(const fnce_plan* plan) {
  if (plan == nullptr) fnce::invalid("plan", "NULL", "a plan of fnce_plan_create");
  return *plan;
}

// The plan of a call of fnce_args.
const fnce_plan& require_loss_plan(const fnce_plan* plan) {
  if (require_plan(plan).problem.is_symmetric())
    fnce::invalid("problem.form", "2 (FNCE_FORM_SYMMETRIC)", "0, 1: fnce_symmetric is the call of a symmetric plan");
  return *plan;
}

void require_workspace(const fnce_plan& plan, void* workspace, size_t bytes) {
  const uint64_t needed = plan.steps->workspace_bytes();
  if (bytes < needed)
    throw fnce::StatusError(FNCE_WORKSPACE_TOO_SMALL, "workspace_bytes is " + fnce::to_text(uint64_t{bytes}) +
                                                          "; allowed: " + fnce::to_text(needed) + " or more");
  if (needed > 0)
    fnce::require_pointer(workspace, FNCE_ALIGNMENT, "workspace", "device memory of fnce_plan_workspace bytes");
}

void require_partial(const fnce_plan& plan, const void* partial, size_t bytes, const char* field) {
  const fnce_problem& p = plan.problem.raw();
  const uint64_t needed = fnce::partial_layout(p.n, p.d, p.scores).bytes;
  if (bytes < needed)
    throw fnce::StatusError(FNCE_WORKSPACE_TOO_SMALL, "partial_bytes is " + fnce::to_text(uint64_t{bytes}) +
                                                          "; allowed: " + fnce::to_text(needed) + " or more");
  fnce::require_pointer(partial, FNCE_ALIGNMENT, field, "device memory of fnce_partial_layout bytes");
}

Args check_call(const fnce_plan& plan, const fnce_args* args, CallKind kind, void* workspace, size_t bytes) {
  Args checked(args, plan.problem, kind, plan.backend.host_memory());
  require_workspace(plan, workspace, bytes);
  return checked;
}

// fnce_symmetric, and with `upstream` its backward pass.
void run_symmetric(const fnce_plan* plan, const fnce_pairs* pairs, const float* upstream, int64_t upstream_count,
                   void* workspace, size_t bytes) {
  const fnce::Problem& problem = require_plan(plan).problem;
  if (!problem.is_symmetric())
    fnce::invalid("problem.form", fnce::to_text(int64_t{problem.raw().form}), "FNCE_FORM_SYMMETRIC (2)");
  const fnce_pairs checked = fnce::check_pairs(pairs, problem, upstream != nullptr, plan->backend.host_memory());
  require_workspace(*plan, workspace, bytes);
  plan->steps->symmetric({checked, upstream, upstream_count > 1, workspace});
}

void require_upstream(const float* upstream, int64_t count, int64_t n) {
  if (count != 1 && count != n) fnce::invalid("upstream_count", fnce::to_text(count), "1, " + fnce::to_text(n));
  fnce::require_pointer(upstream, 4, "upstream", "device memory of [upstream_count] numbers");
}

void run_loss(const fnce_plan& plan, const fnce_args* args, void* workspace, size_t bytes, fnce_stream stream) {
  const Args checked = check_call(plan, args, CallKind::kLoss, workspace, bytes);
  plan.steps->loss({checked, workspace, stream});
}

}  // namespace

extern "C" {

int32_t fnce_version(void) { return FNCE_VERSION; }
const char* fnce_version_string(void) { return kVersion; }
const char* fnce_status_string(fnce_status status) { return fnce::status_name(status); }
const char* fnce_last_error(void) { return fnce::last_error(); }

fnce_status fnce_problem_init(fnce_problem* problem, size_t size, int32_t preset) {
  return guard(
      [&] { fnce::init_versioned(problem, size, fnce::preset_problem(preset), fnce::kFirstProblemSize, "problem"); });
}

fnce_status fnce_args_init(fnce_args* args, size_t size) {
  return guard([&] { fnce::init_versioned(args, size, fnce::default_args(), fnce::kFirstArgsSize, "args"); });
}

fnce_status fnce_plan_create(const fnce_problem* problem, fnce_plan** plan) {
  return guard([&] {
    if (plan == nullptr) fnce::invalid("plan", "NULL", "where the plan is written");
    *plan = fnce::make_plan(fnce::Problem(problem), fnce::backends()).release();
  });
}

void fnce_plan_destroy(fnce_plan* plan) { delete plan; }

fnce_status fnce_plan_workspace(const fnce_plan* plan, size_t* bytes) {
  return guard([&] {
    const fnce_plan& checked = require_plan(plan);
    if (bytes == nullptr) fnce::invalid("bytes", "NULL", "where the size is written");
    *bytes = checked.steps->workspace_bytes();
  });
}

const char* fnce_plan_describe(const fnce_plan* plan) { return plan ? plan->description.c_str() : ""; }

fnce_status fnce_plan_get_info(const fnce_plan* plan, fnce_plan_info* info, size_t size) {
  return guard([&] { fnce::init_versioned(info, size, require_plan(plan).info, fnce::kFirstPlanInfoSize, "info"); });
}

fnce_status fnce_loss(const fnce_plan* plan, const fnce_args* args, void* workspace, size_t workspace_bytes,
                      fnce_stream stream) {
  return guard([&] { run_loss(require_loss_plan(plan), args, workspace, workspace_bytes, stream); });
}

fnce_status fnce_scale(int32_t device, int32_t device_index, const float* gradient, int64_t rows, int64_t columns,
                       const float* upstream, int64_t upstream_count, int32_t out_type, void* out, fnce_stream stream) {
  return guard([&] {
    const fnce::ScaleCall call =
        fnce::check_scale(device, device_index, gradient, rows, columns, upstream, upstream_count, out_type, out);
    fnce::require_device(device, device_index, "", fnce::backends()).scale(call, stream);
  });
}

fnce_status fnce_push_init(fnce_push* push, size_t size) {
  return guard([&] { fnce::init_versioned(push, size, fnce::default_push(), fnce::kFirstPushSize, "push"); });
}

fnce_status fnce_queue_push(const fnce_push* push, fnce_stream stream) {
  return guard([&] {
    const fnce_push checked = fnce::check_push(push);
    fnce::require_device(checked.device, checked.device_index, "push.", fnce::backends()).queue_push(checked, stream);
  });
}

fnce_status fnce_scores(const fnce_plan* plan, const fnce_args* args, const fnce_score_buffers* out, void* workspace,
                        size_t workspace_bytes, fnce_stream stream) {
  return guard([&] {
    const fnce_plan& checked = require_loss_plan(plan);
    if (out == nullptr) fnce::invalid("out", "NULL", "a pointer to a fnce_score_buffers");
    fnce::check_score_buffers(*out, false, "out");
    const Args call = check_call(checked, args, CallKind::kScores, workspace, workspace_bytes);
    checked.steps->scores({call, workspace, stream}, *out);
  });
}

fnce_status fnce_prep(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors, void* workspace,
                      size_t workspace_bytes, fnce_stream stream) {
  return guard([&] {
    const fnce_plan& checked = require_loss_plan(plan);
    fnce::check_anchors(anchors, checked.problem);
    const Args call = check_call(checked, args, CallKind::kPrep, workspace, workspace_bytes);
    checked.steps->prep({call, workspace, stream}, *anchors);
  });
}

fnce_status fnce_partial_layout(const fnce_plan* plan, fnce_layout* layout, size_t size) {
  return guard([&] {
    const fnce_problem& p = require_loss_plan(plan).problem.raw();
    fnce::init_versioned(layout, size, fnce::partial_layout(p.n, p.d, p.scores), fnce::kFirstLayoutSize, "layout");
  });
}

fnce_status fnce_partial(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors, void* partial,
                         size_t partial_bytes, void* workspace, size_t workspace_bytes, fnce_stream stream) {
  return guard([&] {
    const fnce_plan& checked = require_loss_plan(plan);
    fnce::check_anchors(anchors, checked.problem);
    require_partial(checked, partial, partial_bytes, "partial");
    const Args call = check_call(checked, args, CallKind::kPartial, workspace, workspace_bytes);
    checked.steps->partial({call, workspace, stream}, *anchors, partial);
  });
}

fnce_status fnce_merge(const fnce_plan* plan, const void* const* partials, int32_t count, void* out,
                       size_t partial_bytes, fnce_stream stream) {
  return guard([&] {
    const fnce_plan& checked = require_loss_plan(plan);
    if (count < 1) fnce::invalid("count", fnce::to_text(int64_t{count}), "1 or more");
    if (partials == nullptr) fnce::invalid("partials", "NULL", "an array of count partials");
    for (int32_t i = 0; i < count; ++i)
      require_partial(checked, partials[i], partial_bytes, ("partials[" + std::to_string(i) + "]").c_str());
    require_partial(checked, out, partial_bytes, "out");
    for (int32_t i = 1; i < count; ++i)
      if (partials[i] == out)
        fnce::invalid("out", "partials[" + std::to_string(i) + "]", "memory of its own, or partials[0]");
    checked.steps->merge(partials, count, out, stream);
  });
}

fnce_status fnce_partial_rows(const fnce_plan* partial_plan, const void* partial, int64_t first_row,
                              const fnce_plan* plan, void* out, size_t partial_bytes, fnce_stream stream) {
  return guard([&] {
    if (partial_plan == nullptr) fnce::invalid("partial_plan", "NULL", "the plan of the partial");
    require_loss_plan(partial_plan);
    const fnce_plan& checked = require_loss_plan(plan);
    const fnce_problem &from = partial_plan->problem.raw(), &to = checked.problem.raw();
    if (from.d != to.d)
      fnce::invalid("problem.d of plan", fnce::to_text(to.d), fnce::to_text(from.d) + ", as partial_plan");
    if (from.scores != to.scores)
      fnce::invalid("problem.scores of plan", fnce::to_text(int64_t{to.scores}),
                    fnce::to_text(int64_t{from.scores}) + ", as partial_plan");
    fnce::check_range("first_row", first_row, 0, from.n - to.n);
    require_partial(*partial_plan, partial, fnce::partial_layout(from.n, from.d, from.scores).bytes, "partial");
    require_partial(checked, out, partial_bytes, "out");
    if (out == partial) fnce::invalid("out", "partial", "memory of its own");
    checked.steps->take_rows(partial, partial_plan->problem, first_row, out, stream);
  });
}

fnce_status fnce_finish(const fnce_plan* plan, const fnce_args* args, const void* partial, size_t partial_bytes,
                        void* workspace, size_t workspace_bytes, fnce_stream stream) {
  return guard([&] {
    const fnce_plan& checked = require_loss_plan(plan);
    require_partial(checked, partial, partial_bytes, "partial");
    const Args call = check_call(checked, args, CallKind::kFinish, workspace, workspace_bytes);
    checked.steps->finish({call, workspace, stream}, partial);
  });
}

fnce_status fnce_columns_backward(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors,
                                  const float* log_sum_exp, const float* upstream, int64_t upstream_count, void* dx_c,
                                  void* workspace, size_t workspace_bytes, fnce_stream stream) {
  return guard([&] {
    const fnce_plan& checked = require_loss_plan(plan);
    const fnce_problem& p = checked.problem.raw();
    if (p.batch_columns == 0)
      fnce::invalid("problem.batch_columns", "0", "1 or more, where their gradient is asked for");
    if (anchors) fnce::check_anchors(anchors, checked.problem);
    fnce::require_pointer(log_sum_exp, 4, "log_sum_exp", "device memory of [n] numbers that fnce_loss wrote");
    require_upstream(upstream, upstream_count, p.n);
    fnce::require_pointer(dx_c, fnce::alignment_of(p.gradient_type), "dx_c", "device memory of [batch_columns,d]");
    const Args call = check_call(checked, args, anchors ? CallKind::kColumnsOfAnchors : CallKind::kColumns, workspace,
                                 workspace_bytes);
    checked.steps->columns_backward({call, workspace, stream},
                                    {anchors, log_sum_exp, upstream, upstream_count > 1, dx_c});
  });
}

fnce_status fnce_pairs_init(fnce_pairs* pairs, size_t size) {
  return guard([&] { fnce::init_versioned(pairs, size, fnce::default_pairs(), fnce::kFirstPairsSize, "pairs"); });
}

fnce_status fnce_symmetric(const fnce_plan* plan, const fnce_pairs* pairs, void* workspace, size_t workspace_bytes,
                           fnce_stream) {
  return guard([&] { run_symmetric(plan, pairs, nullptr, 0, workspace, workspace_bytes); });
}

fnce_status fnce_symmetric_backward(const fnce_plan* plan, const fnce_pairs* pairs, const float* upstream,
                                    int64_t upstream_count, void* workspace, size_t workspace_bytes, fnce_stream) {
  return guard([&] {
    require_upstream(upstream, upstream_count, require_plan(plan).problem.n());
    run_symmetric(plan, pairs, upstream, upstream_count, workspace, workspace_bytes);
  });
}

fnce_status fnce_run_workspace(const fnce_problem* problem, size_t* bytes) {
  return guard([&] {
    if (bytes == nullptr) fnce::invalid("bytes", "NULL", "where the size is written");
    *bytes = fnce::cached_plan(problem)->steps->workspace_bytes();
  });
}

fnce_status fnce_run(const fnce_problem* problem, const fnce_args* args, void* workspace, size_t workspace_bytes,
                     fnce_stream stream) {
  return guard(
      [&] { run_loss(require_loss_plan(fnce::cached_plan(problem).get()), args, workspace, workspace_bytes, stream); });
}

fnce_status fnce_sample_lambda_pos(const fnce_problem* problem, const fnce_args* args, float* out, int64_t count) {
  return guard([&] {
    const fnce::Problem checked(problem);
    fnce::sample_lambda(checked, Args(args, checked, CallKind::kDrawsPos, true), fnce::Stream::kLambdaPos, out, count);
  });
}

fnce_status fnce_sample_lambda_neg(const fnce_problem* problem, const fnce_args* args, float* out, int64_t count) {
  return guard([&] {
    const fnce::Problem checked(problem);
    fnce::sample_lambda(checked, Args(args, checked, CallKind::kDrawsNeg, true), fnce::Stream::kLambdaNeg, out, count);
  });
}

fnce_status fnce_permutation(const fnce_problem* problem, const fnce_args* args, int32_t* out, int64_t count) {
  return guard([&] {
    const fnce::Problem checked(problem);
    fnce::sample_permutation(checked, Args(args, checked, CallKind::kDrawsPermutation, true), out, count);
  });
}

fnce_status fnce_device_count(int32_t device, int32_t* count) {
  return guard([&] {
    if (device != FNCE_CPU && device != FNCE_CUDA)
      fnce::invalid("device", fnce::to_text(int64_t{device}), "FNCE_CPU (1), FNCE_CUDA (2)");
    if (count == nullptr) fnce::invalid("count", "NULL", "where the number is written");
    int32_t found = 0;
    for (const fnce::Backend* backend : fnce::backends())
      if (backend->device() == device) found = std::max(found, backend->device_count());
    *count = found;
  });
}

const char* fnce_build_info(void) {
  static const std::string text = [] {
    std::string line = std::string("FlashNCE ") + kVersion;
    for (const fnce::Backend* backend : fnce::backends()) line += "; " + backend->build_info();
    return line;
  }();
  return text.c_str();
}

fnce_status fnce_set_threads(int32_t threads) {
  return guard([&] {
    fnce::check_range("threads", threads, 1, fnce::kMaxThreads);
    fnce::set_default_threads(threads);
  });
}

int32_t fnce_get_threads(void) { return fnce::default_threads(); }

}  // extern "C"
