// Launch 1: a block per row makes its anchor, equations (1), (2), (4), (6); further blocks fill the tables of equation
// (3).
#include "kernels/rows/anchor.cuh"
#include "kernels/rows/kernels.h"
#include "kernels/rows/row.cuh"
#include "kernels/rows/tables.cuh"

namespace fnce::cuda {
namespace {

// How q and k are rounded before ranks compare, equation (9): q as the products take anchors, k as a row of the queue.
struct RankScales {
  AnchorScale mixed, plain;
};

FNCE_DEVICE void prep_row(const PrepParams& p, int64_t i, unsigned char* shared) {
  const RowsIn& rows = p.rows;
  BlockReduce reduce = {shared};
  const BlockRow s = prepare_row(rows, i, row_arrays(rows, i, shared + kReduceBytes), reduce);
  const Operand operand = rows.operand;
  const bool anchor_mixed = s.mixes && rows.anchor_mixed;

  RankScales scales = {{1, 1}, {1, 1}};
  if (is_half(operand)) {
    float largest[2] = {0, 0};
    for (int64_t c = threadIdx.x; c < rows.d; c += kRowThreads) {
      largest[0] = MaxOrNan()(largest[0], abs_of(mixed_pair(s, c).q));
      largest[1] = MaxOrNan()(largest[1], abs_of(s.arrays.q[c]));
    }
    reduce_block(reduce, largest, MaxOrNan());
    scales = {anchor_scale(operand, largest[0]), anchor_scale(operand, largest[1])};
  }
  const AnchorScale scale = anchor_mixed ? scales.mixed : scales.plain;

  // The scores of float32 queues are compared with the positive as it is, unless the products round it.
  const bool rounds_rank = rows.queue_type != FNCE_FLOAT32 || operand == Operand::kHalfFast;
  const bool wants_ranks = p.pos || p.unmixed_pos || wants_thresholds(p.thresholds);
  float sums[3] = {0, 0, 0};  // |a|^2, q^.k^, q.k
  float* anchors = p.anchor + i * rows.d;
  sum_columns(rows.d, sums, [&](int64_t c, float(&piece)[3]) {
    const Pair mixed = mixed_pair(s, c), plain = {s.arrays.q[c], s.arrays.k[c]};
    const float a = rounded_anchor(operand, scale, anchor_mixed ? mixed.q : plain.q);
    anchors[c] = a;
    if (!wants_ranks) return;
    piece[0] = fma_rn(a, a, piece[0]);
    if (!rounds_rank) return;
    piece[1] =
        fma_rn(rounded_anchor(operand, scales.mixed, mixed.q), rank_key(operand, rows.queue_type, mixed.k), piece[1]);
    piece[2] =
        fma_rn(rounded_anchor(operand, scales.plain, plain.q), rank_key(operand, rows.queue_type, plain.k), piece[2]);
  });
  pack_anchor(p.packed, operand, scale, i, rows.d, [&](int64_t c) { return anchors[c]; });
  pack_padding(p.packed, operand, i, rows.n);
  if (p.exact_pos && threadIdx.x == 0) p.exact_pos[i] = s.pos;
  if (!wants_ranks) return;
  reduce_block(reduce, sums, Add());
  if (threadIdx.x != 0) return;
  const float pos = rounds_rank ? sums[1] : s.pos, unmixed_pos = rounds_rank ? sums[2] : s.unmixed_pos;
  const float norm = sqrt_rn(sums[0]);
  if (p.pos) p.pos[i] = pos;
  if (p.unmixed_pos) p.unmixed_pos[i] = unmixed_pos;
  write_thresholds(p.thresholds, 0, i, norm, pos);
  write_thresholds(p.thresholds, 1, i, norm, unmixed_pos);
}

__global__ void __launch_bounds__(kRowThreads, 4) prep_rows(const __grid_constant__ PrepParams p) {
  FNCE_DYNAMIC_SHARED(shared);
  const int64_t block = blockIdx.x;
  if (block == 0 && threadIdx.x == 0 && p.ticket) *p.ticket = 0;
  if (block < p.rows.n) {
    prep_row(p, block, shared);
    return;
  }
  BlockReduce reduce = {shared};
  fill_tables(table_job(p, p.rows.draws), block - p.rows.n, reduce);
}

}  // namespace

Kernel<PrepParams> prep_kernel(int64_t d) {
  return {prep_rows, "fnce_prep", kRowThreads, kReduceBytes + row_array_bytes(d)};
}

}  // namespace fnce::cuda
