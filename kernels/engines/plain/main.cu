// The plain main kernel: any number of features, any architecture; float32 products by fused multiply-add. It is what
// the sm80 family is checked against, and what takes over where that cannot serve.
#include "kernels/engines/plain/softmax.cuh"
#include "math/row.h"

namespace fnce::cuda::plain {
namespace {

// True if float16 holds the queue, by the largest magnitude that the blocks of the sm80 kernel saw. A NaN makes all
// results NaN either way.
FNCE_DEVICE bool fits_float16(const MainParams& p, Shared& shared) {
  float most = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < p.queue_extent_count; i += kThreads)
    most = p.queue_extent[i] > most ? p.queue_extent[i] : most;
  most = reduce_to_lane_0(most, Max());
  if (threadIdx.x % 32 == 0) shared.scale_factor[threadIdx.x / 32] = most;
  __syncthreads();
  most = shared.scale_factor[0];
  for (int w = 1; w < kThreads / 32; ++w) most = shared.scale_factor[w] > most ? shared.scale_factor[w] : most;
  __syncthreads();
  return most == 0.0f || (most >= kQueueLeast && most <= kQueueMost);
}

FNCE_DEVICE void start(const MainParams& p, int64_t first_row, Shared& shared) {
  if (threadIdx.x < kRows) shared.state[threadIdx.x] = RunningRow();
  if (!p.sums) return;
  const int64_t rows = p.n - first_row < kRows ? p.n - first_row : kRows;
  float* const o = p.out.view.o + (blockIdx.y * p.n + first_row) * p.d;
  for (int64_t i = threadIdx.x; i < rows * p.d; i += kThreads) o[i] = 0.0f;
}

// shared.scores <- a.z of all rows and columns. A thread has one column and half of the rows.
FNCE_DEVICE void multiply_scores(const MainParams& p, const ColumnTile& tile, int64_t first_row, Shared& shared) {
  constexpr int kThreadRows = kRows * kColumns / kThreads;
  const int thread = static_cast<int>(threadIdx.x), j = thread % kColumns, r0 = thread / kColumns * kThreadRows;
  float total[kThreadRows] = {};
  for (int64_t first = 0; first < p.d; first += kChunk) {
    stage_anchors(p, first_row, first, shared);
    stage_columns(p, tile, first, false, shared);
    __syncthreads();
    // A short sum first, then one addition to the long one: errors grow with D / kChunk.
    float sum[kThreadRows] = {};
    for (int c = 0; c < kChunk; ++c) {
      const float z = shared.columns[j * kColumnStride + c];
      FNCE_UNROLL for (int r = 0; r < kThreadRows; ++r) sum[r] =
          fma_rn(shared.anchors[(r0 + r) * kChunk + c], z, sum[r]);
    }
    FNCE_UNROLL for (int r = 0; r < kThreadRows; ++r) total[r] += sum[r];
    __syncthreads();
  }
  FNCE_UNROLL for (int r = 0; r < kThreadRows; ++r) shared.scores[(r0 + r) * kScoreStride + j] = total[r];
}

// O <- scale_factor O + P' z. A thread has one feature of every chunk and a quarter of the rows.
FNCE_DEVICE void add_sums(const MainParams& p, const ColumnTile& tile, int64_t first_row, Shared& shared) {
  constexpr int kThreadRows = kRows * kChunk / kThreads;
  const int thread = static_cast<int>(threadIdx.x), c = thread % kChunk, r0 = thread / kChunk * kThreadRows;
  for (int64_t first = 0; first < p.d; first += kChunk) {
    stage_columns(p, tile, first, true, shared);
    __syncthreads();
    float sum[kThreadRows] = {};
    for (int j = 0; j < tile.columns; ++j) {
      const float z = shared.columns[j * kColumnStride + c];
      FNCE_UNROLL for (int r = 0; r < kThreadRows; ++r) sum[r] =
          fma_rn(shared.scores[(r0 + r) * kScoreStride + j], z, sum[r]);
    }
    for (int r = 0; r < kThreadRows; ++r) {
      const int64_t row = first_row + r0 + r;
      if (row >= p.n || first + c >= p.d) continue;
      float& o = p.out.view.o[(blockIdx.y * p.n + row) * p.d + first + c];
      o = fma_rn(o, shared.scale_factor[r0 + r], sum[r]);
    }
    __syncthreads();
  }
}

// Writes the partial of one row of this split.
FNCE_DEVICE void write_row(const MainParams& p, int64_t row, const RunningRow& state) {
  const PartialView& out = p.out.view;
  const int64_t at = blockIdx.y * p.n + row;
  out.m[at] = ended_maximum(state.loss.m, state.met);
  out.l[at] = ended_sum(state.loss.l, state.met);
  for (int set = 0; set < 2; ++set)
    if (p.statistics[set]) store_stats(state.sets[set], out.stats[set], at);
  if (!p.statistics[1]) return;
  // What the loss has met is not what these scores are of, where columns may not count.
  const RowColumns met = p.masked ? RowColumns() : state.met;
  out.stats[1].m[at] = ended_sum(state.unmixed.m, met);
  out.stats[1].l[at] = ended_sum(state.unmixed.l, met);
}

__global__ void __launch_bounds__(kThreads, 4) main_plain(const __grid_constant__ MainParams p) {
  FNCE_DYNAMIC_SHARED(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  if (p.only_if && *p.only_if == 0) return;
  if (p.only_if_out_of_range && fits_float16(p, shared)) return;
  const int64_t first_row = int64_t{blockIdx.x} * kRows;
  const int first_of_warp = static_cast<int>(threadIdx.x) / 32 * kWarpRows;
  const float scale = score_scale(value_of(p.temperature));
  int64_t tiles = 0;
  for (int s = 0; s < p.segment_count; ++s) tiles += tiles_of(p.segments[s]);
  const int64_t begin = blockIdx.y * tiles / p.splits, end = (blockIdx.y + int64_t{1}) * tiles / p.splits;
  start(p, first_row, shared);
  for (int64_t t = begin; t < end; ++t) {
    const ColumnTile tile = tile_at(p, t);
    __syncthreads();
    list_columns(p, tile, shared);
    __syncthreads();
    multiply_scores(p, tile, first_row, shared);
    __syncthreads();
    for (int r = first_of_warp; r < first_of_warp + kWarpRows; ++r)
      if (first_row + r < p.n) finish_row_of_tile(p, tile, first_row + r, r, scale, shared);
    __syncthreads();
    if (p.sums && tile.segment.in_loss) add_sums(p, tile, first_row, shared);
  }
  __syncthreads();
  const int64_t row = first_row + threadIdx.x;
  if (threadIdx.x < kRows && row < p.n) write_row(p, row, shared.state[threadIdx.x]);
}

}  // namespace

Kernel<MainParams> main_kernel() {
  return {main_plain, "fnce_main_plain", kThreads, static_cast<int64_t>(sizeof(Shared))};
}

}  // namespace fnce::cuda::plain
