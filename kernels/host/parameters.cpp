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
  thresholds.margin = call.args.raw().margin;
  for (int set = 0; set < 2; ++set) {
    // The margin asks of the scores of the loss, and of raw ones that there are statistics of.
    if (set == 0 || pass.statistics[set]) thresholds.limits[set] = call.workspace.limits[set];
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

// Premixed rows, the queue where it counts, batch columns.
void set_segments(const CudaCall& call, const CudaPass& pass, MainParams& params) {
  const fnce_problem& p = call.problem.raw();
  const fnce_args& a = call.args.raw();
  const auto add = [&](const Segment& segment) {
    if (segment.count > 0 && (segment.in_loss || segment.unmixed)) params.segments[params.segment_count++] = segment;
  };
  Segment queue = {.rows = a.queue,
                   .type = p.queue_type,
                   .stride = p.d,
                   .count = p.k,
                   .in_loss = 1,
                   .unmixed = pass.statistics[1] ? 1 : 0,
                   .ids = a.column_ids,
                   .bias = a.column_bias};
  Segment batch = queue;
  batch.rows = call.workspace.batch;
  batch.count = p.batch_columns;
  batch.ids = a.batch_ids;
  batch.bias = a.batch_bias;
  if (pass.mixing && call.choice.premixes) {
    add({.rows = call.workspace.premixed,
         .type = call.choice.premixed_type,
         .stride = call.choice.premixed_stride,
         .count = p.k,
         .in_loss = 1,
         .unmixed = 0,
         .ids = a.column_ids,
         .partner_ids = call.workspace.partner_ids,
         .bias = a.column_bias});
    queue.in_loss = call.problem.is_union() ? 1 : 0;
  }
  add(queue);
  add(batch);
}

// Numbers the column tiles of all segments.
void set_tiles(const MainLaunch& launch, MainParams& params) {
  params.tiles = 0;
  for (int s = 0; s < kMostSegments; ++s) {
    params.first_tile[s] = params.tiles;
    params.tiles += static_cast<int32_t>((params.segments[s].count + launch.columns - 1) / launch.columns);
  }
  params.mixed_tiles = params.mix ? params.first_tile[1] : 0;
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
  params.ids = a.column_ids;
  params.partner_ids = call.workspace.partner_ids;
  return params;
}

PushParams batch_params(const CudaCall& call) {
  const fnce_problem& p = call.problem.raw();
  return {.keys = call.args.raw().x_c,
          .queue = call.workspace.batch,
          .position_in = nullptr,
          .position_out = nullptr,
          .n = p.batch_columns,
          .k = p.batch_columns,
          .d = p.d,
          .key_type = p.feature_type,
          .queue_type = p.queue_type,
          .normalize = p.normalize,
          .epsilon = call.args.raw().epsilon};
}

void set_wide(MainParams& params) {
  params.wide = 1;
  for (int s = 0; s < params.segment_count; ++s)
    if (!is_wide(params.segments[s], params.d)) params.wide = 0;
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
  set_tiles(launch, params);
  params.lambda_per_row = mix && call.problem.raw().lambda_neg == FNCE_LAMBDA_ROW;
  params.is_union = mix && call.problem.is_union();
  params.sums = pass.sums;
  params.statistics[0] = pass.statistics[0];
  params.statistics[1] = pass.statistics[1];
  if (mix) params.tables = tables_of(call, pass);
  params.temperature = temperature_of(call.args);
  params.thresholds = thresholds_of(call, pass);
  params.masked = call.problem.has_mask();
  params.row_ids = call.args.raw().query_ids;
  for (int set = 0; set < 2; ++set) params.limits[set] = params.thresholds.limits[set];
  if (call.choice.may_fall_back()) {
    params.queue_extent = call.workspace.queue_extent;
    params.queue_extent_count = static_cast<int32_t>(launch.blocks());
  }
  set_wide(params);
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
                         .is_decoupled = call.problem.is_decoupled() ? 1 : 0,
                         .weight = a.weight,
                         .loss = a.loss,
                         .dq = a.dq,
                         .dk = a.dk,
                         .dtemperature_rows = a.dtemperature_rows,
                         .dtemperature = a.dtemperature,
                         .log_sum_exp = a.log_sum_exp,
                         .mixed = a.mixed,
                         .unmixed = a.unmixed};
  params.needs_gradient = call.args.needs_gradient();
  params.loss_rows = call.workspace.loss_rows;
  params.dtemperature_row_sums = call.workspace.dtemperature_row_sums;
  params.ticket = call.workspace.ticket;
  return params;
}

}  // namespace fnce::cuda
