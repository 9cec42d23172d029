// The order of a call's steps on the CPU.
#include "cpu/backend.h"

#include <algorithm>
#include <memory>

#include "core/layout.h"
#include "core/plan_info.h"
#include "core/status.h"
#include "core/threads.h"
#include "core/types.h"
#include "cpu/column_gradient.h"
#include "cpu/features.h"
#include "cpu/kernels.h"
#include "cpu/merge.h"
#include "cpu/pass.h"
#include "cpu/queue.h"
#include "cpu/rows.h"
#include "cpu/schedule.h"
#include "cpu/symmetric.h"
#include "cpu/tiling.h"
#include "cpu/workspace.h"

namespace fnce {
namespace cpu {
namespace {

class CpuPlan : public BackendPlan {
 public:
  explicit CpuPlan(const Problem& problem)
      : problem_(problem),
        kernels_(kernels()),
        tiles_(kernels_.tiles_for(problem.raw().queue_type)),
        threads_(problem.raw().threads ? problem.raw().threads : default_threads()),
        tiling_(problem.n(), problem.k(), problem.batch_columns(), problem.d(), tiles_.shape),
        schedule_(tiling_, threads_, packing_cost(problem, tiles_)),
        gradient_(problem.batch_columns() > 0 ? std::make_unique<ColumnGradient>(problem, kernels_, threads_)
                                              : nullptr),
        symmetric_(problem.is_symmetric() ? std::make_unique<Symmetric>(problem, kernels_, threads_) : nullptr),
        workspace_bytes_(bytes_of(Workspace(nullptr, problem_, tiling_, tiles_, threads_))) {}

  uint64_t workspace_bytes() const override { return workspace_bytes_; }
  fnce_plan_info info() const override;

  void loss(const Call& call) const override {
    const Workspace workspace = carve(call);
    const CpuCall context = this->context(call, workspace);
    check_permutation(context);
    const bool mixed = any_buffer(call.args.raw().mixed), unmixed = any_buffer(call.args.raw().unmixed);
    const fnce_anchors anchors = {workspace.anchors,
                                  mixed || problem_.has_margin() ? workspace.pos : nullptr,
                                  unmixed ? workspace.unmixed_pos : nullptr,
                                  {}};
    const fnce_problem& p = problem_.raw();
    const PartialView partial(workspace.partial, partial_layout(p.n, p.d, p.scores));
    prep_rows(context, RowMixing::kAsProblem, anchors);
    prep_batch(context);
    PassRequest request = columns_of(context);
    request.mixing = true;
    request.sums = call.args.needs_gradient();
    request.mixed = mixed;
    request.unmixed = unmixed;
    run_pass(context, request, anchors, partial);
    finish_rows(context, partial);
  }

  void prep(const Call& call, const fnce_anchors& anchors) const override {
    const Workspace workspace = carve(call);
    prep_rows(context(call, workspace), RowMixing::kAsProblem, anchors);
  }

  void partial(const Call& call, const fnce_anchors& anchors, void* partial) const override {
    const Workspace workspace = carve(call);
    const CpuCall context = this->context(call, workspace);
    check_permutation(context);
    prep_batch(context);
    PassRequest request = columns_of(context);
    request.mixing = request.sums = true;
    request.mixed = problem_.gathers_mixed();
    request.unmixed = problem_.gathers_unmixed();
    run_pass(context, request, anchors, view(partial));
  }

  void merge(const void* const* partials, int32_t count, void* out, fnce_stream) const override {
    merge_partials(problem_, partials, count, threads_, out);
  }

  void take_rows(const void* partial, const Problem& from, int64_t first_row, void* out, fnce_stream) const override {
    cpu::take_rows(from, partial, first_row, problem_, out);
  }

  void finish(const Call& call, const void* partial) const override {
    const Workspace workspace = carve(call);
    finish_rows(context(call, workspace), view(const_cast<void*>(partial)));
  }

  void columns_backward(const Call& call, const ColumnsCall& columns) const override {
    const Workspace workspace = carve(call);
    const CpuCall context = this->context(call, workspace);
    const fnce_anchors own = {workspace.anchors, problem_.has_margin() ? workspace.pos : nullptr, nullptr, {}};
    if (!columns.anchors) prep_rows(context, RowMixing::kAsProblem, own);
    prep_batch(context);
    gradient_->run(context, columns.anchors ? *columns.anchors : own, columns,
                   static_cast<unsigned char*>(call.workspace) + workspace.rows_bytes());
  }

  void scores(const Call& call, const fnce_score_buffers& out) const override {
    const Workspace workspace = carve(call);
    const CpuCall context = this->context(call, workspace);
    const fnce_anchors anchors = {workspace.anchors, workspace.pos, nullptr, {}};
    const PartialView partial(workspace.partial, partial_layout(problem_.n(), problem_.d(), FNCE_SCORES_MIXED));
    float* pos = workspace.loss_rows;  // this call has no losses
    prep_rows(context, RowMixing::kNone, anchors, pos);
    prep_batch(context);
    PassRequest request = columns_of(context);
    request.mixed = true;
    run_pass(context, request, anchors, partial);
    finish_scores(context, partial, pos, out);
  }

  void symmetric(const PairsCall& call) const override { symmetric_->run(call); }

 private:
  // The columns of a call.
  PassRequest columns_of(const CpuCall& call) const {
    const fnce_args& a = call.args.raw();
    const int32_t type = problem_.raw().queue_type;
    PassRequest request = {};
    request.queue = {.rows = a.queue, .type = type, .ids = a.column_ids, .bias = a.column_bias};
    request.batch = {.rows = call.workspace.batch, .type = type, .ids = a.batch_ids, .bias = a.batch_bias};
    request.row_ids = a.query_ids;
    return request;
  }
  // A gradient of columns is a call of its own, which needs the rows' part of the workspace and then its own.
  uint64_t bytes_of(const Workspace& workspace) const {
    if (symmetric_) return symmetric_->bytes();
    if (!gradient_) return workspace.bytes();
    return std::max(workspace.bytes(), workspace.rows_bytes() + gradient_->bytes());
  }
  Workspace carve(const Call& call) const { return Workspace(call.workspace, problem_, tiling_, tiles_, threads_); }
  CpuCall context(const Call& call, const Workspace& workspace) const {
    return {problem_, call.args, kernels_, tiles_, tiling_, schedule_, workspace, threads_};
  }
  PartialView view(void* partial) const {
    const fnce_problem& p = problem_.raw();
    return PartialView(partial, partial_layout(p.n, p.d, p.scores));
  }

  const Problem problem_;
  const Kernels& kernels_;
  const TileKernels& tiles_;
  const int threads_;
  const Tiling tiling_;
  const Schedule schedule_;
  const std::unique_ptr<const ColumnGradient> gradient_;  // null without batch columns
  const std::unique_ptr<const Symmetric> symmetric_;      // null for losses of fnce_args
  const uint64_t workspace_bytes_;
};

fnce_plan_info CpuPlan::info() const {
  fnce_plan_info info = problem_info(problem_, FNCE_MIXING_WHILE_PACKED, workspace_bytes_);
  info.family = FNCE_FAMILY_CPU;
  info.family_reason = forced_isa() ? FNCE_REASON_FORCED : FNCE_REASON_NONE;
  info.products = tiles_.product_type == FNCE_BFLOAT16 ? FNCE_PRODUCTS_BFLOAT16 : FNCE_PRODUCTS_FLOAT32;
  info.cpu_isa = cpu_isa_of(kernels_.name);
  const Tiling& tiling = symmetric_ ? symmetric_->tiling() : tiling_;
  info.lanes = tiling.shape.lanes;
  info.threads = threads_;
  info.row_blocks = tiling.row_blocks;
  info.block_rows = tiling.row_block;
  info.column_tiles = tiling.column_tiles();
  info.tile_columns = kColumnTile;
  info.tile_features = tiling.d_padded;
  info.splits = tiling.chunks;
  info.tasks = symmetric_ ? symmetric_->schedule().tasks() : schedule_.tasks();
  return info;
}

class CpuBackend : public Backend {
 public:
  const char* name() const override { return "cpu"; }
  int32_t device() const override { return FNCE_CPU; }
  int32_t device_count() const override { return 1; }
  bool host_memory() const override { return true; }
  std::string build_info() const override {
    return std::string("cpu (") + kernels().name + " of " + usable_isas() + ")";
  }
  std::unique_ptr<BackendPlan> plan(const Problem& problem) const override {
    if (const char* refused = refused_lid()) invalid("FNCE_CPU_MAX_ISA in the environment", refused, built_isas());
    if (const char* refused = refused_isa())
      invalid("FNCE_CPU_ISA in the environment", refused, std::string(usable_isas()) + " on this processor");
    return std::make_unique<CpuPlan>(problem);
  }
  void scale(const ScaleCall& call, fnce_stream) const override { cpu::scale(call); }
  void queue_push(const fnce_push& push, fnce_stream) const override { cpu::queue_push(push); }
};

}  // namespace
}  // namespace cpu

const Backend& cpu_backend() {
  static const cpu::CpuBackend backend;
  return backend;
}

}  // namespace fnce
