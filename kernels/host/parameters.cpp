#include "kernels/host/parameters.h"

#include <cstdint>

#include "core/layout.h"
#include "core/types.h"
#include "kernels/rows/kernels.h"

namespace fnce::cuda {
namespace {

Draws draws_of(const fnce_args& a) {
  return {{a.seed, a.seed_pointer}, {a.offset, a.offset_pointer}, a.offset_increment};
}

LambdaSource lambda_pos_of(const fnce_problem& p, const fnce_args& a) {
  return {p.lambda_pos, a.lambda_pos, {a.alpha_pos, a.alpha_pos_pointer}, {a.shift_pos, a.shift_pos_pointer}};
}

LambdaSource lambda_neg_of(const fnce_problem& p, const fnce_args& a) {
  return {p.lambda_neg, a.lambda_neg, {a.alpha_neg, a.alpha_neg_pointer}, {a.shift_neg, a.shift_neg_pointer}};
}

// As many rows as the launch has; none where the plain family reads the anchors as they are.
PackedAnchors packed_for(const CudaCall& call, const MainLaunch& launch) {
  PackedAnchors packed = call.workspace.packed;
  packed.rows = call.choice.packs() ? launch.padded_rows() : 0;
  return packed;
}

Thresholds thresholds_of(const CudaCall& call, const CudaPass& pass) {
  Thresholds thresholds = {};
  for (int set = 0; set < 2; ++set) {
    if (!pass.statistics[set]) continue;
    thresholds.upper[set] = call.workspace.upper[set];
    thresholds.lower[set] = call.workspace.lower[set];
  }
  return thresholds;
}

Tables tables_of(const CudaCall& call, const CudaPass& pass) {
  if (!pass.mixing) return {};
  const Workspace& w = call.workspace;
  return {.order = w.order,
          .lambda = w.lambda,
          .lambda_extent = w.lambda_extent,
          .extent_count = w.lambda_extent ? table_blocks(call.problem) : 0};
}

// Fields that PrepParams and PackParams share.
template <class Params>
void set_tables(const CudaCall& call, const CudaPass& pass, Params& params) {
  const fnce_problem& p = call.problem.raw();
  params.tables = tables_of(call, pass);
  params.lambda_neg = lambda_neg_of(p, call.args.raw());
  params.k = p.k;
  params.k_global = p.k_global;
  params.column_offset = p.column_offset;
  params.perm_block = p.perm_block;
  params.table_blocks = pass.mixing ? table_blocks(call.problem) : 0;
}

// All rows of a segment can be copied in pieces of 16 bytes, none of which crosses a row's end.
bool is_wide(const Segment& segment, int64_t d) {
  const int64_t size = element_size(segment.type);
  return reinterpret_cast<uintptr_t>(segment.rows) % 16 == 0 && segment.stride * size % 16 == 0 && d * size % 16 == 0;
}

// Premixed rows and then the queue, or the queue alone.
void set_segments(const CudaCall& call, const CudaPass& pass, MainParams& params) {
  const fnce_problem& p = call.problem.raw();
  Segment queue = {.rows = call.args.raw().queue,
                   .type = p.queue_type,
                   .stride = p.d,
                   .count = p.k,
                   .in_loss = 1,
                   .unmixed = pass.statistics[1] ? 1 : 0};
  if (!pass.mixing || !call.choice.premixes) {
    params.segments[0] = queue;
    params.segment_count = 1;
    return;
  }
  params.segments[0] = {.rows = call.workspace.premixed,
                        .type = call.choice.premixed_type,
                        .stride = call.choice.premixed_stride,
                        .count = p.k,
                        .in_loss = 1,
                        .unmixed = 0};
  params.segment_count = 1;
  queue.in_loss = call.problem.is_union() ? 1 : 0;
  if (queue.in_loss || queue.unmixed) params.segments[params.segment_count++] = queue;
}

}  // namespace

Number<float> temperature_of(const Args& args) { return {args.raw().temperature, args.raw().temperature_pointer}; }

RowsIn rows_in(const CudaCall& call, bool mixing) {
  const fnce_problem& p = call.problem.raw();
  const fnce_args& a = call.args.raw();
  RowsIn rows = {};
  rows.x_q = a.x_q;
  rows.x_k = a.x_k;
  rows.feature_type = p.feature_type;
  rows.queue_type = p.queue_type;
  rows.operand = call.choice.operand;
  rows.normalize = p.normalize;
  rows.mixes = mixing && call.problem.mixes_positives();
  rows.renormalize = rows.mixes && p.renormalize_pos;
  rows.anchor_mixed = mixing && p.anchor == FNCE_ANCHOR_MIXED;
  rows.n = p.n;
  rows.d = p.d;
  rows.row_offset = p.row_offset;
  rows.epsilon = a.epsilon;
  rows.lambda = lambda_pos_of(p, a);
  rows.draws = draws_of(a);
  rows.scratch = call.workspace.row_scratch;
  return rows;
}

PrepParams prep_params(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass) {
  PrepParams params = {};
  params.rows = rows_in(call, pass.mixing);
  params.anchor = call.workspace.anchor;
  params.packed = packed_for(call, launch);
  params.thresholds = thresholds_of(call, pass);
  params.ticket = call.workspace.ticket;
  set_tables(call, pass, params);
  return params;
}

PrepParams prep_params(const CudaCall& call, const fnce_anchors& anchors) {
  PrepParams params = {};
  params.rows = rows_in(call, true);
  params.anchor = static_cast<float*>(anchors.anchor);
  params.pos = anchors.pos;
  params.unmixed_pos = anchors.unmixed_pos;
  params.ticket = call.workspace.ticket;
  return params;
}

PackParams pack_params(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass,
                       const fnce_anchors& anchors) {
  PackParams params = {};
  params.anchor = static_cast<const float*>(anchors.anchor);
  params.pos = anchors.pos;
  params.unmixed_pos = anchors.unmixed_pos;
  params.n = call.problem.n();
  params.d = call.problem.d();
  params.operand = call.choice.operand;
  params.packed = packed_for(call, launch);
  params.thresholds = thresholds_of(call, pass);
  params.draws = draws_of(call.args.raw());
  set_tables(call, pass, params);
  return params;
}

PremixParams premix_params(const CudaCall& call) {
  const fnce_problem& p = call.problem.raw();
  const fnce_args& a = call.args.raw();
  PremixParams params = {};
  params.queue = a.queue;
  params.queue_type = p.queue_type;
  params.k = p.k;
  params.d = p.d;
  params.column_offset = p.column_offset;
  params.lambda = lambda_neg_of(p, a);
  params.draws = draws_of(a);
  params.order = call.workspace.order;
  params.permutation = a.permutation;
  params.k_global = p.k_global;
  params.perm_block = p.perm_block;
  params.renormalize = p.renormalize_neg;
  params.epsilon = a.epsilon;
  params.out = call.workspace.premixed;
  params.out_type = call.choice.premixed_type;
  params.out_stride = call.choice.premixed_stride;
  params.invalid = a.checks & FNCE_CHECK_PERMUTATION ? call.workspace.invalid : nullptr;
  return params;
}

MainParams main_params(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass, const float* anchor) {
  MainParams params = {.out = split_partials_of(call, launch, pass)};
  const bool mix = pass.mixing && call.choice.mixes_scores;
  params.packed = packed_for(call, launch);
  params.anchor = anchor;
  params.n = call.problem.n();
  params.d = call.problem.d();
  set_segments(call, pass, params);
  params.splits = launch.splits;
  params.mix = mix;
  params.lambda_per_row = mix && call.problem.raw().lambda_neg == FNCE_LAMBDA_ROW;
  params.is_union = mix && call.problem.is_union();
  params.sums = pass.sums;
  params.statistics[0] = pass.statistics[0];
  params.statistics[1] = pass.statistics[1];
  if (mix) params.tables = tables_of(call, pass);
  params.temperature = temperature_of(call.args);
  params.thresholds = thresholds_of(call, pass);
  if (call.choice.may_fall_back()) {
    params.queue_extent = call.workspace.queue_extent;
    params.queue_extent_count = static_cast<int32_t>(launch.blocks());
  }
  params.wide = 1;
  for (int s = 0; s < params.segment_count; ++s)
    if (!is_wide(params.segments[s], params.d)) params.wide = 0;
  return params;
}

SplitPartials split_partials_of(const CudaCall& call, const MainLaunch& launch, const CudaPass& pass) {
  // Memory is laid out for all that the plan gathers, and read for what this call does.
  const int32_t scores = pass.mixing ? call.problem.raw().scores : pass.scores();
  PartialView view = call.workspace.split_partials(call.problem, launch, scores);
  for (int set = 0; set < 2; ++set)
    if (!pass.statistics[set]) view.stats[set] = {};
  return {.view = view,
          .n = call.problem.n(),
          .d = call.problem.d(),
          .count = launch.splits,
          .base2 = 1,
          .has_o = pass.sums ? 1 : 0};
}

SplitPartials split_partials_of(const Problem& problem, const void* partial) {
  const fnce_problem& p = problem.raw();
  return {.view = PartialView(const_cast<void*>(partial), partial_layout(p.n, p.d, p.scores)),
          .n = p.n,
          .d = p.d,
          .count = 1,
          .base2 = 0,
          .has_o = 1};
}

FinishParams finish_params(const CudaCall& call, const SplitPartials& from) {
  const fnce_problem& p = call.problem.raw();
  const fnce_args& a = call.args.raw();
  FinishParams params = {.rows = rows_in(call, true),
                         .from = from,
                         .temperature = temperature_of(call.args),
                         .reduction = p.reduction,
                         .gradient_type = p.gradient_type,
                         .weight = a.weight,
                         .loss = a.loss,
                         .dq = a.dq,
                         .dk = a.dk,
                         .dtemperature_rows = a.dtemperature_rows,
                         .dtemperature = a.dtemperature,
                         .mixed = a.mixed,
                         .unmixed = a.unmixed};
  params.needs_gradient = call.args.needs_gradient();
  params.loss_rows = call.workspace.loss_rows;
  params.dtemperature_row_sums = call.workspace.dtemperature_row_sums;
  params.ticket = call.workspace.ticket;
  return params;
}

}  // namespace fnce::cuda
