#include "cpu/rows.h"

#include <limits>

#include "core/types.h"
#include "cpu/pool.h"
#include "math/lambda.h"
#include "math/row.h"

namespace fnce::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

LambdaDraw positive_draw(const Args& args) {
  return {args.seed(), args.offset(), Stream::kLambdaPos, inverse_alpha(args.raw().alpha_pos), args.raw().shift_pos};
}

// The lambdas of row i: [1], or [D] for the granularities that have one per feature.
const float* lambda_of_row(const CpuCall& call, int64_t i, float* scratch) {
  const fnce_problem& p = call.problem.raw();
  const float* given = call.args.raw().lambda_pos;
  const bool sampled = p.lambda_pos_source == FNCE_SAMPLED;
  switch (p.lambda_pos) {
    case FNCE_LAMBDA_CALL:
    case FNCE_LAMBDA_ROW: {
      const bool per_row = p.lambda_pos == FNCE_LAMBDA_ROW;
      if (!sampled) return given + (per_row ? i : 0);
      call.kernels.lambda_rows(positive_draw(call.args), per_row ? p.row_offset + i : 0, 1, scratch);
      return scratch;
    }
    case FNCE_LAMBDA_DIMENSION: return sampled ? call.workspace.lambda_pos_dims : given;
    case FNCE_LAMBDA_ELEMENT:
      if (!sampled) return given + i * p.d;
      call.kernels.lambda_elements(positive_draw(call.args), p.row_offset + i, p.d, scratch);
      return scratch;
    default: return nullptr;
  }
}

RowInput row_input(const CpuCall& call, RowMixing mixing, int64_t i, float* lambda_scratch) {
  const fnce_problem& p = call.problem.raw();
  RowInput input = features_alone(call);
  input.x_q = element_at(call.args.raw().x_q, i * p.d, p.feature_type);
  input.x_k = element_at(call.args.raw().x_k, i * p.d, p.feature_type);
  if (mixing == RowMixing::kNone) return input;
  input.lambda = lambda_of_row(call, i, lambda_scratch);
  input.per_element = p.lambda_pos == FNCE_LAMBDA_DIMENSION || p.lambda_pos == FNCE_LAMBDA_ELEMENT;
  input.renormalize = p.renormalize_pos != 0;
  return input;
}

template <class RowBody>
void for_rows(const CpuCall& call, RowBody&& body) {
  parallel_rows(call.threads, call.problem.n(), [&](int64_t i, int worker) { body(i, call.workspace.thread(worker)); });
}

void draw_dimensions(const CpuCall& call) {
  if (call.workspace.lambda_pos_dims)
    call.kernels.lambda_dimensions(positive_draw(call.args), call.problem.d(), call.workspace.lambda_pos_dims);
}

// m and l: of the scores of `stats`.
void write_statistics(const fnce_score_buffers& out, int64_t i, float pos, const StatsView& stats, const float* m,
                      const float* l) {
  if (out.pos) out.pos[i] = pos;
  write_scores(out, i, load_stats<float>(stats, i), log_sum_exp(m[i], l[i]));
}

// One row of a gradient, where it is asked for, becomes `value` all over.
void fill_row(const CpuCall& call, void* out, float value, float* scratch) {
  if (!out) return;
  const int64_t d = call.problem.d();
  for (int64_t c = 0; c < d; ++c) scratch[c] = value;
  call.kernels.scale_row(scratch, FNCE_FLOAT32, 1.0f, d, out, call.problem.raw().gradient_type);
}

// Gradients of row i, and its statistics that follow from them; `softmax` is the row with its positive in the sum.
void write_gradients(const CpuCall& call, const PartialView& partial, int64_t i, const ThreadScratch& scratch,
                     const RowInput& input, const RowResult& softmax, const RowResult& row, float weight) {
  const fnce_args& a = call.args.raw();
  const fnce_problem& p = call.problem.raw();
  void* dq = a.dq ? element_at(a.dq, i * p.d, p.gradient_type) : nullptr;
  void* dk = a.dk ? element_at(a.dk, i * p.d, p.gradient_type) : nullptr;
  float norm = 0, dtemperature = 0, entropy = kNan;
  if (row.finite) {
    RowGradient g = {};
    g.o = partial.o + i * p.d;
    g.inverse_l = inverse_sum(partial.l[i]);
    g.anchor_mixed = p.anchor == FNCE_ANCHOR_MIXED;
    g.w = static_cast<float>(row.w);
    g.temperature = a.temperature;
    g.up = upstream_factor(weight, p.reduction == FNCE_REDUCTION_MEAN, p.n);
    g.dq = dq;
    g.dk = dk;
    g.type = p.gradient_type;
    g.scratch = scratch.gradient;
    g.wants_norm = a.mixed.dq_norm != nullptr;
    call.kernels.row_gradient(input, scratch.row, g);
    const RowScalars scalars = row_scalars(row, g.anchor_o, g.up, a.temperature);
    dtemperature = scalars.dtemperature;
    entropy =
        call.problem.is_decoupled() ? row_scalars(softmax, g.anchor_o, g.up, a.temperature).entropy : scalars.entropy;
    norm = g.dq_norm;
  }
  if (!has_gradient(row, weight)) {
    const float value = gradient_filler(weight);
    fill_row(call, dq, value, scratch.gradient);
    fill_row(call, dk, value, scratch.gradient);
    norm = dtemperature = value;
  }
  call.workspace.dtemperature_rows[i] = dtemperature;
  if (a.mixed.entropy) a.mixed.entropy[i] = entropy;
  if (a.mixed.dq_norm) a.mixed.dq_norm[i] = norm;
}

void write_reductions(const CpuCall& call) {
  const fnce_args& a = call.args.raw();
  const fnce_problem& p = call.problem.raw();
  const Workspace& w = call.workspace;
  double loss = 0, dtemperature = 0;
  for (int64_t i = 0; i < p.n; ++i) {
    loss += static_cast<double>(w.loss_rows[i]);
    if (call.args.needs_gradient()) dtemperature += static_cast<double>(w.dtemperature_rows[i]);
    if (a.loss && p.reduction == FNCE_REDUCTION_NONE) a.loss[i] = w.loss_rows[i];
    if (a.dtemperature_rows) a.dtemperature_rows[i] = w.dtemperature_rows[i];
  }
  if (p.reduction == FNCE_REDUCTION_MEAN) loss /= static_cast<double>(p.n);
  if (a.loss && p.reduction != FNCE_REDUCTION_NONE) *a.loss = static_cast<float>(loss);
  if (a.dtemperature) *a.dtemperature = static_cast<float>(dtemperature);
}

}  // namespace

RowInput features_alone(const CpuCall& call) {
  const fnce_problem& p = call.problem.raw();
  RowInput input = {};
  input.type = p.feature_type;
  input.normalize = p.normalize != 0;
  input.epsilon = call.args.raw().epsilon;
  input.d = p.d;
  return input;
}

float CpuCall::scale() const { return score_scale(args.raw().temperature); }

void prep_rows(const CpuCall& call, RowMixing mixing, const fnce_anchors& anchors, float* pos) {
  const fnce_problem& p = call.problem.raw();
  const bool anchor_mixed = mixing == RowMixing::kAsProblem && p.anchor == FNCE_ANCHOR_MIXED;
  if (mixing == RowMixing::kAsProblem) draw_dimensions(call);
  for_rows(call, [&](int64_t i, const ThreadScratch& scratch) {
    PreparedRow state = scratch.row;
    call.kernels.prepare_row(row_input(call, mixing, i, scratch.lambda_row), state);
    float* anchor = static_cast<float*>(anchors.anchor) + i * p.d;
    const float* exact = anchor_mixed ? state.q_mixed : state.q;
    const bool rounds = call.tiles.product_type != FNCE_FLOAT32;
    if (rounds) {
      // The anchor has the values that products are made of.
      call.kernels.scale_row(exact, FNCE_FLOAT32, 1.0f, p.d, scratch.gradient, call.tiles.product_type);
      call.kernels.scale_row(scratch.gradient, call.tiles.product_type, 1.0f, p.d, anchor, FNCE_FLOAT32);
    } else {
      call.kernels.scale_row(exact, FNCE_FLOAT32, 1.0f, p.d, anchor, FNCE_FLOAT32);
    }
    // Ranks ask how the key would do as a row of the queue: rounded to its type.
    const auto rank_pos = [&](const float* q, const float* k, float score) {
      return p.queue_type == FNCE_FLOAT32 ? score : call.kernels.rounded_dot(q, rounds, k, p.queue_type, p.d);
    };
    if (pos) pos[i] = state.pos;
    if (anchors.pos) anchors.pos[i] = rank_pos(state.q_mixed, state.k_mixed, state.pos);
    if (anchors.unmixed_pos) anchors.unmixed_pos[i] = rank_pos(state.q, state.k, state.unmixed_pos);
  });
}

void prep_batch(const CpuCall& call) {
  const fnce_problem& p = call.problem.raw();
  const RowInput features = features_alone(call);
  parallel_rows(call.threads, p.batch_columns, [&](int64_t j, int worker) {
    float* row = call.workspace.thread(worker).gradient;
    call.kernels.normalize_row(features, element_at(call.args.raw().x_c, j * p.d, p.feature_type), row);
    call.kernels.scale_row(row, FNCE_FLOAT32, 1.0f, p.d, element_at(call.workspace.batch, j * p.d, p.queue_type),
                           p.queue_type);
  });
}

void finish_rows(const CpuCall& call, const PartialView& partial) {
  const fnce_args& a = call.args.raw();
  draw_dimensions(call);
  for_rows(call, [&](int64_t i, const ThreadScratch& thread) {
    ThreadScratch scratch = thread;
    const RowInput input = row_input(call, RowMixing::kAsProblem, i, scratch.lambda_row);
    call.kernels.prepare_row(input, scratch.row);
    const float weight = a.weight ? a.weight[i] : 1.0f, l = partial.l[i];
    const RowResult softmax = row_result(partial.m[i], l, scratch.row.pos, call.scale(), scratch.row.finite);
    const bool is_decoupled = call.problem.is_decoupled();
    const double lse = is_decoupled ? log_sum_exp(partial.m[i], l) : 0.0;
    const RowResult row = is_decoupled ? decoupled(softmax, lse, l) : softmax;
    call.workspace.loss_rows[i] = weighted_loss(row, weight);
    if (a.log_sum_exp)
      a.log_sum_exp[i] =
          static_cast<float>(is_decoupled ? decoupled_log_sum_exp(softmax, lse, l) : row_log_sum_exp(softmax));
    if (call.args.needs_gradient()) write_gradients(call, partial, i, scratch, input, softmax, row, weight);
    if (any_buffer(a.mixed)) write_statistics(a.mixed, i, scratch.row.pos, partial.stats[0], partial.m, partial.l);
    if (any_buffer(a.unmixed))
      write_statistics(a.unmixed, i, scratch.row.unmixed_pos, partial.stats[1], partial.stats[1].m, partial.stats[1].l);
  });
  write_reductions(call);
}

void finish_scores(const CpuCall& call, const PartialView& partial, const float* pos, const fnce_score_buffers& out) {
  for (int64_t i = 0; i < call.problem.n(); ++i)
    write_statistics(out, i, pos[i], partial.stats[0], partial.m, partial.l);
}

}  // namespace fnce::cpu
