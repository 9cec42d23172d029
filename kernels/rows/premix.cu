// Mixed negatives made once, equations (3) and (4), for the problems whose scores cannot be mixed. A warp per row.
#include "kernels/rows/draws.cuh"
#include "kernels/rows/kernels.h"
#include "kernels/rows/reduce.cuh"
#include "math/mixing.h"
#include "math/norm.h"
#include "math/permutation.h"

namespace fnce::cuda {
namespace {

// A row, its partner, and whether anything is wrong with them that only NaN can report.
struct RowPair {
  int64_t row, partner;
  bool wrong;
};

FNCE_DEVICE RowPair pair_at(const PremixParams& p, int64_t i) {
  if (!p.order) {
    const int64_t partner = p.permutation[i];
    const bool wrong = partner < 0 || partner >= p.k;
    return {i, wrong ? i : partner, wrong};
  }
  const PermutationBlock block = permutation_block(p.column_offset + i, p.perm_block, p.k_global);
  const int64_t first = block.first - p.column_offset;
  const int64_t next = first + cycle_next(static_cast<uint32_t>(i - first), block.size);
  return {p.order[i], p.order[next], false};
}

struct Source {
  LambdaReader lambdas;
  float lambda;  // where it is one for the row
  int64_t row, partner, global_row;
  bool per_feature, wide;
};

// Makes four features of z^ from 4*quad on, 0 beyond D.
FNCE_DEVICE Four mixed_four(const PremixParams& p, const Source& s, int64_t quad) {
  const int64_t c = 4 * quad;
  const int count = p.d - c < 4 ? static_cast<int>(p.d - c < 0 ? 0 : p.d - c) : 4;
  const Four x = load_four(p.queue, s.row * p.d + c, count, p.queue_type, s.wide);
  const Four y = load_four(p.queue, s.partner * p.d + c, count, p.queue_type, s.wide);
  Four lambda = {{s.lambda, s.lambda, s.lambda, s.lambda}};
  if (s.per_feature) lambda = lambda_of_features(s.lambdas, s.row, s.global_row, quad, p.d);
  Four mixed;
  FNCE_UNROLL for (int u = 0; u < 4; ++u) mixed.value[u] =
      u < count ? mix(lambda.value[u], x.value[u], y.value[u]) : 0.0f;
  return mixed;
}

// 1 / |z^|. The whole warp takes part, and every lane gets it.
FNCE_DEVICE float inverse_norm_of(const PremixParams& p, const Source& s) {
  constexpr int kPiece = 16;  // sums of so many are added up on their own: errors hardly grow with D
  const int64_t quads = (p.d + 3) / 4;
  float total = 0;
  for (int64_t quad = threadIdx.x % 32; quad < quads;) {
    float piece = 0;
    for (int i = 0; i < kPiece && quad < quads; ++i, quad += 32) {
      const Four z = mixed_four(p, s, quad);
      FNCE_UNROLL for (int u = 0; u < 4; ++u) piece = fma_rn(z.value[u], z.value[u], piece);
    }
    total += piece;
  }
  return checked_inverse_norm(sqrt_rn(reduce_warp(total, Add())), p.epsilon);
}

__global__ void __launch_bounds__(kRowThreads, 4) premix_rows(const __grid_constant__ PremixParams p) {
  Source s = {};
  s.lambdas = lambda_reader(p.lambda, p.draws, Stream::kLambdaNeg);
  s.per_feature = is_per_feature(p.lambda.granularity);
  s.wide = is_wide(p.queue, p.d, p.queue_type);
  const bool all_wrong = (p.invalid && *p.invalid != 0) || (p.order && is_wrong_offset(p.draws));
  const bool wide_out = is_wide(p.out, p.out_stride, p.out_type);
  const int64_t warps = int64_t{gridDim.x} * kRowWarps;
  for (int64_t i = int64_t{blockIdx.x} * kRowWarps + threadIdx.x / 32; i < p.k; i += warps) {
    const RowPair pair = pair_at(p, i);
    s.row = pair.row;
    s.partner = pair.partner;
    s.global_row = p.column_offset + pair.row;
    if (!s.per_feature) s.lambda = lambda_of_row(s.lambdas, s.row, s.global_row);
    float factor = p.renormalize ? inverse_norm_of(p, s) : 1.0f;
    if (all_wrong || pair.wrong) factor = nan_float();
    if (p.partner_ids && threadIdx.x % 32 == 0) p.partner_ids[s.row] = p.ids[s.partner];
    for (int64_t quad = threadIdx.x % 32; 4 * quad < p.out_stride; quad += 32) {
      Four z = mixed_four(p, s, quad);
      FNCE_UNROLL for (int u = 0; u < 4; ++u) z.value[u] = 4 * quad + u < p.d ? z.value[u] * factor : 0.0f;
      const int count = p.out_stride - 4 * quad < 4 ? static_cast<int>(p.out_stride - 4 * quad) : 4;
      store_four(z, p.out, s.row * p.out_stride + 4 * quad, count, p.out_type, wide_out);
    }
  }
}

}  // namespace

Kernel<PremixParams> premix_kernel() { return {premix_rows, "fnce_premix", kRowThreads, 0}; }

}  // namespace fnce::cuda
