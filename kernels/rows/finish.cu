// The last launch: a block per row merges its partials, adds the positive, and writes loss, gradients and statistics,
// equations (7), (8), (9). The block that ends last adds up the rows.
#include "kernels/rows/kernels.h"
#include "kernels/rows/row.cuh"
#include "kernels/rows/statistics.cuh"
#include "math/gradient.h"
#include "math/row.h"

namespace fnce::cuda {
namespace {

// What the threads of a block share besides the arrays of the row.
struct FinishShared {
  alignas(16) unsigned char reduce[kReduceBytes];
  float scale_factors[kScaleFactors];
  RowResult row, softmax;  // the loss, and with the positive in the sum
  SetStats<float> statistics[2];
  unsigned is_last;
};
constexpr int64_t kFinishBytes = (static_cast<int64_t>(sizeof(FinishShared)) + 127) / 128 * 128;

// What gradients are made of.
struct GradientJob {
  bool anchor_mixed;
  float scale;      // w / temperature
  float inverse_l;  // 1 / l, 0 without columns
  float up;         // weight and reduction
  void *dq, *dk;    // or null
  bool wants_norm;
};

struct GradientResult {
  float anchor_o;  // a . o-bar
  float dq_norm;   // if wanted
};

// g_q^ and g_k^ without renormalisation, into arrays.g_q and g_k. Returns a . O-bar, and in `dots` g_q^.q^ and g_k^.k^.
FNCE_DEVICE float start_gradients(const RowsIn& rows, const BlockRow& s, const GradientJob& g, float (&dots)[2],
                                  BlockReduce reduce) {
  const RowArrays& a = s.arrays;
  float sums[3] = {0, 0, 0};
  sum_columns(rows.d, sums, [&](int64_t c, float(&piece)[3]) {
    const Pair mixed = mixed_pair(s, c);
    piece[0] = fma_rn(g.anchor_mixed ? mixed.q : a.q[c], a.o[c], piece[0]);
    const float g_q = gradient_query_mixed(g.scale, mixed.k, g.anchor_mixed ? a.o[c] * g.inverse_l : 0.0f);
    const float g_k = gradient_key_mixed(g.scale, mixed.q);
    piece[1] = fma_rn(g_q, mixed.q, piece[1]);
    piece[2] = fma_rn(g_k, mixed.k, piece[2]);
    a.g_q[c] = g_q;
    a.g_k[c] = g_k;
  });
  reduce_block(reduce, sums, Add());
  dots[0] = sums[1];
  dots[1] = sums[2];
  return sums[0] * g.inverse_l;
}

// Back through renormalisation and mixing: g_q and g_k of equation (8). `dots`: as start_gradients left them; then
// g_q.q, g_k.k.
FNCE_DEVICE void unmix_gradients(const RowsIn& rows, const BlockRow& s, const GradientJob& g, float (&dots)[2],
                                 BlockReduce reduce) {
  const RowArrays& a = s.arrays;
  const bool renormalizes = s.mixes && rows.renormalize;
  const NormBackward<float> rule_q = norm_backward(s.norm_q_mixed, rows.epsilon, dots[0]);
  const NormBackward<float> rule_k = norm_backward(s.norm_k_mixed, rows.epsilon, dots[1]);
  float sums[2] = {0, 0};
  sum_columns(rows.d, sums, [&](int64_t c, float(&piece)[2]) {
    Pair gradient = {a.g_q[c], a.g_k[c]};
    if (renormalizes) {
      const Pair mixed = mixed_pair(s, c);
      gradient = {apply(rule_q, gradient.q, mixed.q), apply(rule_k, gradient.k, mixed.k)};
    }
    if (s.mixes) gradient = mix_pair(s, c, gradient);
    if (!g.anchor_mixed) gradient.q += gradient_anchor(g.scale, a.o[c] * g.inverse_l);
    a.g_q[c] = gradient.q;
    a.g_k[c] = gradient.k;
    piece[0] = fma_rn(gradient.q, a.q[c], piece[0]);
    piece[1] = fma_rn(gradient.k, a.k[c], piece[1]);
  });
  reduce_block(reduce, sums, Add());
  dots[0] = sums[0];
  dots[1] = sums[1];
}

FNCE_DEVICE GradientResult write_gradients(const RowsIn& rows, int64_t i, int32_t type, const BlockRow& s,
                                           const GradientJob& g, BlockReduce reduce) {
  float dots[2];
  GradientResult result = {start_gradients(rows, s, g, dots, reduce), 0};
  if (!g.dq && !g.dk && !g.wants_norm) return result;
  unmix_gradients(rows, s, g, dots, reduce);
  const NormBackward<float> rule_q = norm_backward(s.norm_q, rows.epsilon, dots[0]);
  const NormBackward<float> rule_k = norm_backward(s.norm_k, rows.epsilon, dots[1]);
  double squares = 0;  // gradients of tiny rows reach 1e24: their squares overflow float32
  for (int64_t c = threadIdx.x; c < rows.d; c += kRowThreads) {
    float g_q = s.arrays.g_q[c], g_k = s.arrays.g_k[c];
    if (rows.normalize) {
      g_q = apply(rule_q, g_q, s.arrays.q[c]);
      g_k = apply(rule_k, g_k, s.arrays.k[c]);
    }
    if (g.dq) store_element(g_q * g.up, g.dq, i * rows.d + c, type);
    if (g.dk) store_element(g_k * g.up, g.dk, i * rows.d + c, type);
    const double x = static_cast<double>(g_q) * static_cast<double>(g.up);
    if (g.wants_norm) squares = fma_rn(x, x, squares);
  }
  if (g.wants_norm) result.dq_norm = static_cast<float>(sqrt(block_sum(reduce, squares)));
  return result;
}

FNCE_DEVICE void fill_gradients(const FinishParams& p, int64_t i, float value) {
  for (int64_t c = threadIdx.x; c < p.rows.d; c += kRowThreads) {
    if (p.dq) store_element(value, p.dq, i * p.rows.d + c, p.gradient_type);
    if (p.dk) store_element(value, p.dk, i * p.rows.d + c, p.gradient_type);
  }
}

// Gradients of row i, and its statistics that follow from them. All threads arrive.
FNCE_DEVICE void finish_gradients(const FinishParams& p, int64_t i, const BlockRow& s, const FinishShared& shared,
                                  float l, float weight, BlockReduce reduce) {
  const RowResult& row = shared.row;
  const float temperature = value_of(p.temperature);
  const bool weighs = has_gradient(row, weight);
  float norm = 0, dtemperature = 0, entropy = nan_float();
  if (row.finite) {
    GradientJob g = {};
    g.anchor_mixed = p.rows.anchor_mixed != 0;
    g.scale = static_cast<float>(row.w) / temperature;
    g.inverse_l = inverse_sum(l);
    g.up = upstream_factor(weight, p.reduction == FNCE_REDUCTION_MEAN, p.rows.n);
    g.dq = weighs ? p.dq : nullptr;
    g.dk = weighs ? p.dk : nullptr;
    g.wants_norm = weighs && p.mixed.dq_norm;
    const GradientResult result = write_gradients(p.rows, i, p.gradient_type, s, g, reduce);
    const RowScalars scalars = row_scalars(row, result.anchor_o, g.up, temperature);
    entropy =
        p.is_decoupled ? row_scalars(shared.softmax, result.anchor_o, g.up, temperature).entropy : scalars.entropy;
    dtemperature = scalars.dtemperature;
    norm = result.dq_norm;
  }
  if (!weighs) {
    norm = dtemperature = gradient_filler(weight);
    fill_gradients(p, i, norm);
  }
  if (threadIdx.x != 0) return;
  p.dtemperature_row_sums[i] = dtemperature;
  if (p.dtemperature_rows) p.dtemperature_rows[i] = dtemperature;
  if (p.mixed.entropy) p.mixed.entropy[i] = entropy;
  if (p.mixed.dq_norm) p.mixed.dq_norm[i] = norm;
}

// Losses and gradients of the temperature, over all rows, by the last block.
FNCE_DEVICE void write_reductions(const FinishParams& p, BlockReduce reduce) {
  // Other blocks wrote these.
  const volatile float *loss_rows = p.loss_rows, *dtemperature_rows = p.dtemperature_row_sums;
  const bool sums_loss = p.loss && p.reduction != FNCE_REDUCTION_NONE;
  double sums[2] = {0, 0};
  for (int64_t i = threadIdx.x; i < p.rows.n; i += kRowThreads) {
    if (sums_loss) sums[0] += static_cast<double>(loss_rows[i]);
    if (p.dtemperature) sums[1] += static_cast<double>(dtemperature_rows[i]);
  }
  reduce_block(reduce, sums, Add());
  if (threadIdx.x != 0) return;
  if (p.reduction == FNCE_REDUCTION_MEAN) sums[0] /= static_cast<double>(p.rows.n);
  if (sums_loss) *p.loss = static_cast<float>(sums[0]);
  if (p.dtemperature) *p.dtemperature = static_cast<float>(sums[1]);
}

FNCE_DEVICE bool gathers(const FinishParams& p, int set) {
  return wants_negatives(set == 0 ? p.mixed : p.unmixed) && p.from.view.stats[set].count;
}

// By one thread: the result of row i from the m and l of its columns.
FNCE_DEVICE void make_result(const FinishParams& p, int64_t i, const BlockRow& s, float m, float l, float scale,
                             FinishShared& shared) {
  shared.row = shared.softmax = row_result(m, l, s.pos, scale, s.finite);
  const double lse = p.is_decoupled ? log_sum_exp(m, l) : 0.0;
  if (p.is_decoupled) shared.row = decoupled(shared.softmax, lse, l);
  if (p.log_sum_exp)
    p.log_sum_exp[i] = static_cast<float>(p.is_decoupled ? decoupled_log_sum_exp(shared.softmax, lse, l)
                                                         : row_log_sum_exp(shared.softmax));
}

// By one thread: what follows from the negatives and the positive alone.
FNCE_DEVICE void write_row(const FinishParams& p, int64_t i, const BlockRow& s, const FinishShared& shared, float m,
                           float l, float weight, float scale) {
  const float weighted = weighted_loss(shared.row, weight);
  p.loss_rows[i] = weighted;
  if (p.loss && p.reduction == FNCE_REDUCTION_NONE) p.loss[i] = weighted;
  if (p.mixed.pos) p.mixed.pos[i] = s.pos;
  if (p.unmixed.pos) p.unmixed.pos[i] = s.unmixed_pos;
  // What was multiplied by a wrong temperature is NaN, whatever else it was.
  const double check = static_cast<double>(nan_unless_finite(scale));
  if (gathers(p, 0)) write_scores(p.mixed, i, shared.statistics[0].stats, log_sum_exp(m, l) + check);
  if (gathers(p, 1)) {
    const SetStats<float>& unmixed = shared.statistics[1];
    write_scores(p.unmixed, i, unmixed.stats, log_sum_exp(unmixed.lse.m, unmixed.lse.l) + check);
  }
}

__global__ void __launch_bounds__(kRowThreads, 4) finish_rows(const __grid_constant__ FinishParams p) {
  FNCE_DYNAMIC_SHARED(memory);
  FinishShared& shared = *reinterpret_cast<FinishShared*>(memory);
  BlockReduce reduce = {shared.reduce};
  const int64_t i = blockIdx.x;
  const RowArrays arrays = row_arrays(p.rows, i, memory + kFinishBytes);
  const RowPartials partials = {p.from, nullptr, i};
  float l;
  const MergedMaximum maximum = merge_log_sums(partials, l, reduce);
  if (p.needs_gradient) l += merge_sums(partials, maximum, shared.scale_factors, arrays.o, reduce);
  const int set = static_cast<int>(threadIdx.x / 32);
  if (set <= 1 && gathers(p, set)) {
    const SetStats<float> statistics = rounded_statistics(merge_statistics_by_warp(partials, set));
    if (threadIdx.x % 32 == 0) shared.statistics[set] = statistics;
  }
  const BlockRow s = prepare_row(p.rows, i, arrays, reduce);
  const float scale = score_scale(value_of(p.temperature)), weight = p.weight ? p.weight[i] : 1.0f;
  if (threadIdx.x == 0) {
    make_result(p, i, s, maximum.m, l, scale, shared);
    write_row(p, i, s, shared, maximum.m, l, weight, scale);
  }
  __syncthreads();
  if (p.needs_gradient) finish_gradients(p, i, s, shared, l, weight, reduce);
  if (threadIdx.x == 0) {
    __threadfence();
    shared.is_last = atomicAdd(p.ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (shared.is_last) write_reductions(p, reduce);
}

}  // namespace

Kernel<FinishParams> finish_kernel(int64_t d) {
  return {finish_rows, "fnce_finish", kRowThreads, kFinishBytes + row_array_bytes(d)};
}

}  // namespace fnce::cuda
