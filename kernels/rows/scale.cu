// fnce_scale: a saved gradient times the gradient that comes from above, rounded once.
#include "kernels/rows/elements.cuh"
#include "kernels/rows/kernels.h"

namespace fnce::cuda {
namespace {

constexpr int kThreads = 256;

FNCE_DEVICE void scale_groups(const ScaleParams& p, int64_t first, int64_t count, float factor, int64_t begin,
                              int64_t step) {
  const bool wide = is_wide(p.gradient + first, 4, FNCE_FLOAT32);
  const int64_t skipped = first * (p.out_type == FNCE_FLOAT32 ? 4 : 2);
  void* out = static_cast<unsigned char*>(p.out) + skipped;
  const bool wide_out = is_wide(out, 4, p.out_type);
  for (int64_t i = 4 * begin; i < count; i += 4 * step) {
    const int left = count - i < 4 ? static_cast<int>(count - i) : 4;
    Four x = load_four(p.gradient + first, i, left, FNCE_FLOAT32, wide);
    FNCE_UNROLL for (int u = 0; u < 4; ++u) x.value[u] *= factor;
    store_four(x, out, i, left, p.out_type, wide_out);
  }
}

__global__ void __launch_bounds__(kThreads) scale_rows(const __grid_constant__ ScaleParams p) {
  if (!p.per_row) {
    // One factor for all: one long row, to which all threads of the grid belong.
    const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    scale_groups(p, 0, p.rows * p.columns, p.upstream[0], thread, int64_t{gridDim.x} * kThreads);
    return;
  }
  for (int64_t i = blockIdx.x; i < p.rows; i += gridDim.x)
    scale_groups(p, i * p.columns, p.columns, p.upstream[i], threadIdx.x, kThreads);
}

}  // namespace

Kernel<ScaleParams> scale_kernel() { return {scale_rows, "fnce_scale", kThreads, 0}; }

}  // namespace fnce::cuda
