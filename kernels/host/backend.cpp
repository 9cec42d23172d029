// The order of a call's launches on a GPU.
#include "kernels/host/backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>

#include "core/layout.h"
#include "core/status.h"
#include "kernels/contract/launch.h"
#include "kernels/host/column_gradient.h"
#include "kernels/host/device.h"
#include "kernels/host/families.h"
#include "kernels/host/parameters.h"
#include "kernels/host/pass.h"
#include "kernels/host/plan.h"
#include "kernels/host/pointers.h"
#include "kernels/host/workspace.h"
#include "kernels/rows/kernels.h"

namespace fnce {
namespace cuda {
namespace {

// Loads the kernels of calls that have no plan, once per device: with its first plan, or by the first of these calls.
void load_planless_kernels(int32_t device) {
  static std::array<std::atomic<bool>, 1024> loaded;
  auto& done = loaded[static_cast<size_t>(device)];
  if (done.load(std::memory_order_acquire)) return;
  const RelaxedCapture relaxed;
  load(scale_kernel());
  load(push_kernel());
  load(push_position_kernel());
  done.store(true, std::memory_order_release);
}

class CudaPlan : public BackendPlan {
 public:
  // The kernels are those that fit `planned`, the device's caps or what they are said to be; of the family `forced`
  // unless it is null.
  CudaPlan(const Problem& problem, const DeviceCaps& caps, const DeviceCaps& planned, const Family* forced)
      : problem_(problem),
        choice_(choose(problem, planned, forced)),
        gradient_(problem.batch_columns() > 0 ? std::make_unique<ColumnGradient>(problem, choice_, planned, forced)
                                              : nullptr),
        workspace_bytes_(bytes_of(Workspace(nullptr, problem_, choice_))),
        info_(info_of(problem_, choice_, caps, workspace_bytes_)) {
    const DeviceGuard guard(device());
    load_kernels();
  }

  uint64_t workspace_bytes() const override { return workspace_bytes_; }
  fnce_plan_info info() const override { return info_; }

  void loss(const Call& call) const override {
    const DeviceGuard guard(device());
    check(call, {.workspace = call.workspace});
    const Workspace workspace(call.workspace, problem_, choice_);
    const CudaCall cuda_call = bind(call, workspace);
    const fnce_args& a = call.args.raw();
    const CudaPass pass = {
        .mixing = true, .sums = call.args.needs_gradient(), .statistics = {any_buffer(a.mixed), any_buffer(a.unmixed)}};
    launch_prep(prep_params(cuda_call, choice_.loss, pass), call.stream);
    run_pass(cuda_call, choice_.loss, pass, workspace.anchor, call.stream);
    launch_finish(cuda_call, split_partials_of(cuda_call, choice_.loss, pass), call.stream);
  }

  void prep(const Call& call, const fnce_anchors& anchors) const override {
    const DeviceGuard guard(device());
    check(call, {.workspace = call.workspace, .anchors = &anchors});
    const Workspace workspace(call.workspace, problem_, choice_);
    launch_prep(prep_params(bind(call, workspace), anchors), call.stream);
  }

  void partial(const Call& call, const fnce_anchors& anchors, void* partial) const override {
    const DeviceGuard guard(device());
    check(call, {.workspace = call.workspace, .anchors = &anchors, .partial = partial});
    const Workspace workspace(call.workspace, problem_, choice_);
    const CudaCall cuda_call = bind(call, workspace);
    const CudaPass pass = {
        .mixing = true, .sums = true, .statistics = {problem_.gathers_mixed(), problem_.gathers_unmixed()}};
    const PackParams pack = pack_params(cuda_call, choice_.loss, pass, anchors);
    launch(pack_kernel(pack.d), grid_of(pack.n + pack.table_blocks), pack, call.stream);
    run_pass(cuda_call, choice_.loss, pass, pack.anchor, call.stream);
    const SplitPartials partials = split_partials_of(cuda_call, choice_.loss, pass);
    launch(merge_kernel(), grid_of(problem_.n()), {partials, split_partials_of(problem_, partial).view, 0},
           call.stream);
  }

  void merge(const void* const* partials, int32_t count, void* out, fnce_stream stream) const override {
    const DeviceGuard guard(device());
    check_stream(stream, device());
    if (partials[0] != out) copy_async(out, partials[0], layout().bytes, stream);
    const PartialView sum = split_partials_of(problem_, out).view;
    for (int32_t i = 1; i < count; ++i)
      launch(merge_kernel(), grid_of(problem_.n()), {split_partials_of(problem_, partials[i]), sum, 1}, stream);
  }

  void take_rows(const void* partial, const Problem& from, int64_t first_row, void* out,
                 fnce_stream stream) const override;

  void finish(const Call& call, const void* partial) const override {
    const DeviceGuard guard(device());
    check(call, {.workspace = call.workspace, .partial = partial});
    const Workspace workspace(call.workspace, problem_, choice_);
    zero_async(workspace.ticket, sizeof *workspace.ticket, call.stream);
    launch_finish(bind(call, workspace), split_partials_of(problem_, partial), call.stream);
  }

  void columns_backward(const Call& call, const ColumnsCall& columns) const override {
    const DeviceGuard guard(device());
    check(call, {.workspace = call.workspace, .anchors = columns.anchors, .columns = &columns});
    const Workspace workspace(call.workspace, problem_, choice_);
    const CudaCall cuda_call = bind(call, workspace);
    const fnce_anchors own = {workspace.anchor, problem_.has_margin() ? workspace.exact_pos : nullptr, nullptr, {}};
    if (!columns.anchors) launch_prep(prep_params(cuda_call, own), call.stream);
    prep_batch(cuda_call, call.stream);
    gradient_->run(cuda_call, columns.anchors ? *columns.anchors : own, columns,
                   static_cast<unsigned char*>(call.workspace) + workspace.rows_bytes(), call.stream);
  }

  void scores(const Call& call, const fnce_score_buffers& out) const override {
    const DeviceGuard guard(device());
    check(call, {.workspace = call.workspace, .out = &out});
    const Workspace workspace(call.workspace, problem_, choice_);
    const CudaCall cuda_call = bind(call, workspace);
    const CudaPass pass = {.mixing = false, .sums = false, .statistics = {true, false}};
    PrepParams prep = prep_params(cuda_call, choice_.scores, pass);
    prep.exact_pos = workspace.exact_pos;
    launch_prep(prep, call.stream);
    run_pass(cuda_call, choice_.scores, pass, workspace.anchor, call.stream);
    const FinishScoresParams params = {split_partials_of(cuda_call, choice_.scores, pass), workspace.exact_pos,
                                       temperature_of(call.args), out, problem_.n()};
    launch(finish_scores_kernel(), walking_grid(problem_.n(), 128), params, call.stream);
  }

 private:
  int32_t device() const { return problem_.raw().device_index; }
  fnce_layout layout() const { return partial_layout(problem_.n(), problem_.d(), problem_.raw().scores); }
  // A gradient of columns is a call of its own, which needs the rows' part of the workspace and then its own.
  uint64_t bytes_of(const Workspace& workspace) const {
    if (!gradient_) return workspace.bytes();
    return std::max(workspace.bytes(), workspace.rows_bytes() + gradient_->bytes());
  }
  CudaCall bind(const Call& call, const Workspace& workspace) const {
    return {problem_, choice_, call.args, workspace};
  }

  void check(const Call& call, const OtherPointers& others) const {
    check_stream(call.stream, device());
    if (call.args.raw().checks & FNCE_CHECK_POINTERS) check_pointers(pointers_of(call.args, others), device());
  }

  // Loads all that a call may launch, so that even the first one may be inside a stream capture.
  void load_kernels() const {
    const RelaxedCapture relaxed;
    load(prep_kernel(problem_.d()));
    load(pack_kernel(problem_.d()));
    if (choice_.premixes) load(premix_kernel());
    if (choice_.premixes && !problem_.samples_permutation()) load(check_permutation_kernel());
    load_main(choice_, choice_.loss);
    load_main(choice_, choice_.scores);
    if (gradient_) gradient_->load_kernels();
    load(merge_kernel());
    load(finish_kernel(problem_.d()));
    load(finish_scores_kernel());
    load_planless_kernels(device());
  }

  void launch_prep(const PrepParams& params, fnce_stream stream) const {
    launch(prep_kernel(params.rows.d), grid_of(params.rows.n + params.table_blocks), params, stream);
  }

  void launch_finish(const CudaCall& call, const SplitPartials& from, fnce_stream stream) const {
    launch(finish_kernel(problem_.d()), grid_of(problem_.n()), finish_params(call, from), stream);
  }

  // Writes mixed rows where scores cannot be mixed.
  void premix(const CudaCall& call, fnce_stream stream) const {
    const int64_t k = problem_.k();
    const PremixParams params = premix_params(call);
    if (params.invalid) {
      zero_async(call.workspace.seen, static_cast<uint64_t>((k + 31) / 32 + 1) * sizeof(uint32_t), stream);
      launch(check_permutation_kernel(), walking_grid(k, 1024),
             {params.permutation, k, call.workspace.seen, call.workspace.invalid}, stream);
    }
    launch(premix_kernel(), walking_grid(k, 4), params, stream);
  }

  // Writes batch columns as rows of the queue.
  void prep_batch(const CudaCall& call, fnce_stream stream) const {
    const int64_t columns = problem_.batch_columns();
    if (columns > 0) launch(push_kernel(), walking_grid(columns, 1), batch_params(call), stream);
  }

  // Runs everything between the anchors and the partials of the splits.
  void run_pass(const CudaCall& call, const MainLaunch& chosen, const CudaPass& pass, const float* anchor,
                fnce_stream stream) const {
    if (pass.mixing && choice_.premixes) premix(call, stream);
    prep_batch(call, stream);
    run_main(choice_, chosen, main_params(call, chosen, pass, anchor), stream);
  }

  const Problem problem_;
  const CudaChoice choice_;
  const std::unique_ptr<const ColumnGradient> gradient_;  // null without batch columns
  const uint64_t workspace_bytes_;
  const fnce_plan_info info_;
};

void CudaPlan::take_rows(const void* partial, const Problem& from, int64_t first_row, void* out,
                         fnce_stream stream) const {
  const DeviceGuard guard(device());
  check_stream(stream, device());
  const PartialView source = split_partials_of(from, partial).view, target = split_partials_of(problem_, out).view;
  fnce::take_rows(source, first_row, target, problem_.n(), problem_.d(),
                  [&](auto* to, const auto* from_array, int64_t count) {
                    copy_async(to, from_array, static_cast<uint64_t>(count) * sizeof *to, stream);
                  });
}

class CudaBackend : public Backend {
 public:
  const char* name() const override { return "cuda"; }
  int32_t device() const override { return FNCE_CUDA; }
  int32_t device_count() const override { return cuda::device_count(); }
  std::string why_no_device() const override { return cuda::why_no_device(); }
  bool host_memory() const override { return false; }

  std::string build_info() const override {
    const int32_t count = device_count();
    return "cuda (runtime " + runtime_version() + ", architectures " FNCE_CUDA_ARCHS ", " + to_text(int64_t{count}) +
           (count == 1 ? " device)" : " devices)");
  }

  std::unique_ptr<BackendPlan> plan(const Problem& problem) const override {
    const DeviceCaps caps = caps_of(problem.raw().device_index);
    DeviceCaps planned = caps;
    planned.sm_count = planned_multiprocessors(std::getenv("FNCE_MULTIPROCESSORS"), caps.sm_count);
    const Family* forced = forced_family(std::getenv("FNCE_BACKEND"));
    return std::make_unique<CudaPlan>(problem, caps, planned, forced);
  }

  void scale(const ScaleCall& call, fnce_stream stream) const override {
    if (call.rows == 0 || call.columns == 0) return;
    const DeviceGuard guard(call.device_index);
    check_stream(stream, call.device_index);
    load_planless_kernels(call.device_index);
    launch(scale_kernel(), call.per_row ? walking_grid(call.rows, 1) : walking_grid(call.rows * call.columns, 1024),
           {call.gradient, call.upstream, call.out, call.rows, call.columns, call.per_row, call.out_type}, stream);
  }

  void queue_push(const fnce_push& push, fnce_stream stream) const override {
    if (push.position_in == push.position_out)
      invalid("push.position_out", "push.position_in", "memory of its own on a GPU");
    const DeviceGuard guard(push.device_index);
    check_stream(stream, push.device_index);
    if (push.checks & FNCE_CHECK_POINTERS) check_pointers(pointers_of(push), push.device_index);
    load_planless_kernels(push.device_index);
    const PushParams params = {.keys = push.keys,
                               .queue = push.queue,
                               .position_in = push.position_in,
                               .position_out = push.position_out,
                               .n = push.n,
                               .k = push.k,
                               .d = push.d,
                               .key_type = push.key_type,
                               .queue_type = push.queue_type,
                               .normalize = push.normalize,
                               .epsilon = push.epsilon};
    if (push.n > 0) launch(push_kernel(), walking_grid(std::min(push.n, push.k), 1), params, stream);
    launch(push_position_kernel(), {}, params, stream);
  }
};

}  // namespace
}  // namespace cuda

const Backend& cuda_backend() {
  static const cuda::CudaBackend backend;
  return backend;
}

}  // namespace fnce
