#include "kernels/host/column_gradient.h"

#include "core/layout.h"
#include "kernels/contract/launch.h"
#include "kernels/host/device.h"
#include "kernels/host/pass.h"
#include "kernels/rows/kernels.h"

namespace fnce::cuda {
namespace {

constexpr CudaPass kPass = {.mixing = true, .sums = true, .statistics = {false, false}};

// The type that holds the anchors as the forward pass multiplies them.
int32_t anchor_type(const CudaChoice& forward) {
  return forward.operand == Operand::kBfloat ? FNCE_BFLOAT16 : FNCE_FLOAT32;
}

const Family* serving(const Family* forced, const Problem& problem, const DeviceCaps& caps) {
  return forced && forced->obstacle(problem, caps).code == FNCE_REASON_NONE ? forced : nullptr;
}

// Rows of one type become rows of another.
void convert(const void* from, int32_t from_type, void* to, int32_t to_type, const Problem& problem, int64_t rows,
             fnce_stream stream) {
  const PushParams params = {.keys = from,
                             .queue = to,
                             .position_in = nullptr,
                             .position_out = nullptr,
                             .n = rows,
                             .k = rows,
                             .d = problem.d(),
                             .key_type = from_type,
                             .queue_type = to_type,
                             .normalize = 0,
                             .epsilon = 0};
  launch(push_kernel(), walking_grid(rows, 1), params, stream);
}

}  // namespace

// The pieces of run()'s memory; with base = nullptr it only counts.
struct ColumnGradient::Memory {
  Memory(void* base, const ColumnGradient& plan) {
    const auto n = static_cast<uint64_t>(plan.problem_.k()), c = static_cast<uint64_t>(plan.problem_.n()),
               d = static_cast<uint64_t>(plan.problem_.d());
    Carver carver(base);
    for (float*& side : bias) side = carver.take<float>(n);
    limits = plan.has_margin_ ? carver.take<float>(n) : nullptr;
    any = carver.take<uint32_t>(2);
    sums = carver.take<float>(c * d);
    anchors = plan.problem_.raw().queue_type == FNCE_BFLOAT16 ? carver.take<uint16_t>(n * d) : nullptr;
    batch = plan.batch_type_ == FNCE_FLOAT32 ? nullptr : carver.take<float>(c * d);
    pass = base ? static_cast<unsigned char*>(base) + carver.used() : nullptr;
    pass_begin = carver.used();
  }
  float *bias[2], *limits;  // [N]
  uint32_t* any;            // [2]
  float* sums;              // [C,D]
  uint16_t* anchors;        // [N,D] bfloat16; null where they are multiplied as they are
  float* batch;             // [C,D]; null where the forward pass multiplies float32
  void* pass;               // the workspace of the pass
  uint64_t pass_begin;
};

ColumnGradient::ColumnGradient(const Problem& problem, const CudaChoice& forward, const DeviceCaps& caps,
                               const Family* forced)
    : problem_(places_changed(problem, anchor_type(forward))),
      choice_(choose(problem_, caps, serving(forced, problem_, caps))),
      has_margin_(problem.has_margin()),
      batch_type_(problem.raw().queue_type),
      bytes_(Memory(nullptr, *this).pass_begin + Workspace(nullptr, problem_, choice_).bytes()) {}

void ColumnGradient::load_kernels() const {
  load(upstream_kernel());
  load(column_sums_kernel());
  load(column_gradient_kernel());
  load_main(choice_, choice_.loss);
}

void ColumnGradient::run(const CudaCall& forward, const fnce_anchors& anchors, const ColumnsCall& columns, void* base,
                         fnce_stream stream) const {
  const Memory memory(base, *this);
  const Workspace workspace(memory.pass, problem_, choice_);
  const CudaCall call = {problem_, choice_, forward.args, workspace};
  const fnce_problem& p = forward.problem.raw();
  const fnce_args& a = forward.args.raw();

  zero_async(memory.any, 2 * sizeof *memory.any, stream);
  const UpstreamParams upstream = {.upstream = columns.upstream,
                                   .per_row = columns.per_row,
                                   .reduction = p.reduction,
                                   .weight = a.weight,
                                   .log_sum_exp = columns.log_sum_exp,
                                   .pos = anchors.pos,
                                   .margin = a.margin,
                                   .n = p.n,
                                   .bias = {memory.bias[0], memory.bias[1]},
                                   .limits = memory.limits,
                                   .any = memory.any};
  launch(upstream_kernel(), walking_grid(p.n, 128), upstream, stream);
  if (memory.anchors) convert(anchors.anchor, FNCE_FLOAT32, memory.anchors, FNCE_BFLOAT16, problem_, p.n, stream);
  if (memory.batch)
    convert(forward.workspace.batch, p.queue_type, memory.batch, FNCE_FLOAT32, problem_, p.batch_columns, stream);
  float* const batch = memory.batch ? memory.batch : static_cast<float*>(forward.workspace.batch);
  if (choice_.packs()) {
    const PackParams pack = pack_params(call, choice_.loss, kPass, {batch, nullptr, nullptr, {}});
    launch(pack_kernel(pack.d), grid_of(pack.n), pack, stream);
  }

  MainParams pass = main_params(call, choice_.loss, kPass, batch);
  Segment& segment = pass.segments[0];
  segment.rows = memory.anchors ? static_cast<const void*>(memory.anchors) : anchors.anchor;
  segment.ids = a.query_ids;
  segment.limits = memory.limits;
  segment.unnamed_counts = 1;
  set_wide(pass);
  pass.row_ids = a.batch_ids;
  ColumnSumsParams sums = {.from = pass.out,
                           .only_if = nullptr,
                           .sign = 0,
                           .accumulates = 0,
                           .batch = batch,
                           .batch_bias = a.batch_bias,
                           .batch_ids = a.batch_ids,
                           .temperature = temperature_of(forward.args),
                           .sums = memory.sums};
  for (int side = 0; side < 2; ++side) {
    segment.bias = memory.bias[side];
    pass.only_if = sums.only_if = memory.any + side;
    sums.sign = side == 0 ? 1.0f : -1.0f;
    sums.accumulates = side;
    run_main(choice_, choice_.loss, pass, stream);
    launch(column_sums_kernel(), grid_of(p.batch_columns), sums, stream);
  }
  const ColumnGradientParams gradient = {.x_c = a.x_c,
                                         .feature_type = p.feature_type,
                                         .gradient_type = p.gradient_type,
                                         .normalize = p.normalize,
                                         .c = p.batch_columns,
                                         .d = p.d,
                                         .epsilon = a.epsilon,
                                         .sums = memory.sums,
                                         .dx_c = columns.dx_c};
  launch(column_gradient_kernel(), grid_of(p.batch_columns), gradient, stream);
}

}  // namespace fnce::cuda
