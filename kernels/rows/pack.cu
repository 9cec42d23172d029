// fnce_partial: anchors from outside, packed as prep packs its own, and the tables of equation (3).
#include "kernels/rows/anchor.cuh"
#include "kernels/rows/kernels.h"
#include "kernels/rows/tables.cuh"

namespace fnce::cuda {
namespace {

FNCE_DEVICE void pack_row(const PackParams& p, int64_t i, BlockReduce reduce) {
  const float* anchor = p.anchor + i * p.d;
  float largest = 0;
  for (int64_t c = threadIdx.x; c < p.d; c += kRowThreads) largest = MaxOrNan()(largest, abs_of(anchor[c]));
  largest = block_max(reduce, largest);
  const AnchorScale scale = anchor_scale(p.operand, largest);
  pack_anchor(p.packed, p.operand, scale, i, p.d, [&](int64_t c) { return anchor[c]; });
  pack_padding(p.packed, p.operand, i, p.n);
  if (!wants_thresholds(p.thresholds)) return;
  float squares[1] = {0};
  sum_columns(p.d, squares, [&](int64_t c, float(&piece)[1]) { piece[0] = fma_rn(anchor[c], anchor[c], piece[0]); });
  reduce_block(reduce, squares, Add());
  if (threadIdx.x != 0) return;
  const float norm = sqrt_rn(squares[0]);
  write_thresholds(p.thresholds, 0, i, norm, p.pos ? p.pos[i] : 0.0f);
  write_thresholds(p.thresholds, 1, i, norm, p.unmixed_pos ? p.unmixed_pos[i] : 0.0f);
}

__global__ void __launch_bounds__(kRowThreads) pack_rows(const __grid_constant__ PackParams p) {
  FNCE_DYNAMIC_SHARED(shared);
  BlockReduce reduce = {shared};
  const int64_t block = blockIdx.x;
  if (block < p.n)
    pack_row(p, block, reduce);
  else
    fill_tables(table_job(p, p.draws), block - p.n, reduce);
}

}  // namespace

Kernel<PackParams> pack_kernel(int64_t) { return {pack_rows, "fnce_pack", kRowThreads, kReduceBytes}; }

}  // namespace fnce::cuda
