// The gradient of the batch columns, equation (16), around the pass that makes its sums: biases of the anchors before
// it, a block per batch column behind it.
#include "kernels/rows/kernels.h"
#include "kernels/rows/merge.cuh"
#include "math/norm.h"
#include "math/row.h"

namespace fnce::cuda {
namespace {

__global__ void __launch_bounds__(kRowThreads) bias_anchors(const __grid_constant__ UpstreamParams p) {
  const int64_t threads = int64_t{gridDim.x} * kRowThreads;
  for (int64_t i = int64_t{blockIdx.x} * kRowThreads + threadIdx.x; i < p.n; i += threads) {
    const float weight = upstream_factor(p.weight ? p.weight[i] : 1.0f, p.reduction == FNCE_REDUCTION_MEAN, p.n);
    for (int side = 0; side < 2; ++side) {
      const float bias =
          upstream_bias(p.upstream[p.per_row ? i : 0], weight, p.log_sum_exp[i], side == 0 ? 1.0f : -1.0f);
      p.bias[side][i] = bias;
      if (bias != -infinity_float()) atomicOr(p.any + side, 1u);
    }
    if (p.limits) p.limits[i] = p.pos[i] + p.margin;
  }
}

// True if some row may have sent something to the column. `l` is the sum of their weights.
FNCE_DEVICE bool column_counts(const ColumnSumsParams& p, int64_t j, float l) {
  return l != 0.0f && !(p.batch_bias && p.batch_bias[j] == -infinity_float()) &&
         !(p.batch_ids && p.batch_ids[j] == FNCE_NO_COLUMN);
}

__global__ void __launch_bounds__(kRowThreads, 4) add_column_sums(const __grid_constant__ ColumnSumsParams p) {
  FNCE_DYNAMIC_SHARED(shared);
  BlockReduce reduce = {shared};
  float* const scale_factors = reinterpret_cast<float*>(shared + kReduceBytes);
  const int64_t j = blockIdx.x, d = p.from.d;
  float* const sums = p.sums + j * d;
  float l = 0.0f, *const o = p.from.view.o + j * d;
  MergedMaximum maximum = {};
  const bool ran = *p.only_if != 0;
  if (ran) {
    const RowPartials partials = {p.from, nullptr, j};
    maximum = merge_log_sums(partials, l, reduce);
    l += merge_sums(partials, maximum, scale_factors, o, reduce);
  }
  const bool counts = ran && column_counts(p, j, l);
  double factor = 0;
  if (counts) {
    // Exponentials and comparisons may have lost a NaN.
    float check = 0;
    for (int64_t c = threadIdx.x; c < d; c += kRowThreads) check += nan_unless_finite(p.batch[j * d + c]);
    check = block_sum(reduce, check) + nan_unless_finite(maximum.m) + nan_unless_finite(l);
    factor = column_factor(maximum.m, p.batch_bias ? p.batch_bias[j] : 0.0f, p.sign, value_of(p.temperature)) +
             static_cast<double>(check);
  }
  for (int64_t c = threadIdx.x; c < d; c += kRowThreads) {
    const float added = counts ? static_cast<float>(factor * static_cast<double>(o[c])) : 0.0f;
    sums[c] = p.accumulates ? sums[c] + added : added;
  }
}

__global__ void __launch_bounds__(kRowThreads, 4)
    write_column_gradient(const __grid_constant__ ColumnGradientParams p) {
  FNCE_DYNAMIC_SHARED(shared);
  BlockReduce reduce = {shared};
  const int64_t row = int64_t{blockIdx.x} * p.d;
  const float* const g = p.sums + row;
  float sums[2] = {0, 0};  // |x_c|^2, and not 0 if the gradient is not
  sum_columns(p.d, sums, [&](int64_t c, float(&piece)[2]) {
    const float x = load_element(p.x_c, row + c, p.feature_type);
    piece[0] = fma_rn(x, x, piece[0]);
    piece[1] += g[c] == 0.0f ? 0.0f : 1.0f;
  });
  reduce_block(reduce, sums, Add());
  // A column to which no row sends anything has no gradient, whatever it holds.
  const bool any = sums[1] != 0.0f;
  const float norm = sqrt_rn(sums[0]), factor = checked_inverse_norm(norm, p.epsilon);
  NormBackward<float> rule = {1.0f, 0.0f};
  if (any && p.normalize) {
    float dot[1] = {0};
    sum_columns(p.d, dot, [&](int64_t c, float(&piece)[1]) {
      piece[0] = fma_rn(g[c], load_element(p.x_c, row + c, p.feature_type) * factor, piece[0]);
    });
    reduce_block(reduce, dot, Add());
    rule = norm_backward(norm, p.epsilon, dot[0]);
  }
  for (int64_t c = threadIdx.x; c < p.d; c += kRowThreads) {
    float gradient = any ? g[c] : 0.0f;
    if (any && p.normalize) gradient = apply(rule, gradient, load_element(p.x_c, row + c, p.feature_type) * factor);
    store_element(gradient, p.dx_c, row + c, p.gradient_type);
  }
}

}  // namespace

Kernel<UpstreamParams> upstream_kernel() { return {bias_anchors, "fnce_upstream", kRowThreads, 0}; }
Kernel<ColumnSumsParams> column_sums_kernel() {
  return {add_column_sums, "fnce_column_sums", kRowThreads, kReduceBytes + kScaleFactorBytes};
}
Kernel<ColumnGradientParams> column_gradient_kernel() {
  return {write_column_gradient, "fnce_column_gradient", kRowThreads, kReduceBytes};
}

}  // namespace fnce::cuda
