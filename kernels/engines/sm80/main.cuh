// The main kernel: one pass over the negatives of a split for a block of queries. docs/kernels/one-pass.md draws it.
#pragma once
#include "kernels/engines/sm80/epilogue.cuh"
#include "kernels/engines/sm80/load.cuh"
#include "math/row.h"

namespace fnce::cuda::sm80 {

// The bias of the weights is less where lambdas outside [0, 1] let P' grow beyond what float16 holds.
template <class C>
FNCE_DEVICE float weight_bias(const MainParams& p, int lane) {
  if (!p.mix || !C::kIsHalf) return C::kBias;
  float extent = 1.0f;  // of |lambda| + |1 - lambda|
  for (int i = lane; i < p.tables.extent_count; i += 32) extent = fmaxf(extent, p.tables.lambda_extent[i]);
  for (int mask = 16; mask > 0; mask /= 2) extent = fmaxf(extent, __shfl_xor_sync(kFullWarp, extent, mask));
  // P' <= (|lambda| + |1 - lambda'| + 1 for the union) P <= (extent + 1 + 1) P, and P <= 2^(kLazy + bias).
  const float bound = extent + 1.0f + (p.is_union ? 1.0f : 0.0f);
  return fminf(C::kBias, floorf(15.9f - C::kLazy - log2f(bound)));
}

template <class C>
FNCE_DEVICE void start_rows(const MainParams& p, const Shared<C>& shared, const Place<C>& place, RunningRows<C>& rows,
                            Sums<C>& o) {
  const float scale = score_scale(value_of(p.temperature));
  for (int row = static_cast<int>(threadIdx.x); row < C::kRows; row += C::kThreads)
    shared.scale()[row] = scale * p.packed.scale[int64_t{blockIdx.x} * C::kRows + row];
  rows.bias = weight_bias<C>(p, place.lane);
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) {
    FNCE_UNROLL for (int h = 0; h < 2; ++h) {
      rows.reference[mi][h] = kMinusInfinity;
      rows.l[mi][h] = 0.0f;
    }
    FNCE_UNROLL for (int c = 0; c < C::kFeatures / 8; ++c) FNCE_UNROLL for (int r = 0; r < 4; ++r) o[mi][c][r] = 0.0f;
  }
}

// PROLOGUE: finds the rows of the first tiles, and asks for the anchors and these tiles. Returns the info of the tile
// after those.
template <class C>
FNCE_DEVICE ColumnInfo start_loads(const MainParams& p, const Walk& walk, const Shared<C>& shared,
                                   const Place<C>& place, Anchors<C>& anchors) {
  const int thread = static_cast<int>(threadIdx.x);
  ColumnInfo next = {-1, 0.0f};
  if (thread < C::kColumns) {
    for (int step = 0; step <= C::kAhead; ++step)
      store_info<C>(shared, step, thread, column_info<C>(p, walk, step, thread));
    next = column_info<C>(p, walk, C::kAhead + 1, thread);
  }
  __syncthreads();
  if constexpr (!C::kDividesFeatures) load_anchors<C>(p, shared);
  for (int step = 0; step < C::kAhead; ++step) {
    load_columns<C>(p, walk, shared, step);
    cp_async_commit();
  }
  if constexpr (C::kDividesFeatures) load_anchors<C>(p, place, anchors);
  return next;
}

// Makes the tile of `step` readable and keeps kAhead further ones on their way. Behind it the whole block is past the
// step before, whose stage is filled again.
template <class C>
FNCE_DEVICE void advance(const MainParams& p, const Walk& walk, const Shared<C>& shared, int step, ColumnInfo& next,
                         float& extent) {
  cp_async_wait<C::kAhead - 1>();
  __syncthreads();
  if constexpr (C::kConverts) {
    extent = convert_columns<C>(shared, extent);
    __syncwarp();  // the warp's raw pieces have been read, and are filled again
  }
  const int thread = thread_in_loop<C>();
  if (thread < C::kColumns) {
    store_info<C>(shared, step + C::kAhead + 1, thread, next);
    next = column_info<C>(p, walk, step + C::kAhead + 2, thread);
  }
  load_columns<C>(p, walk, shared, step + C::kAhead);
  cp_async_commit();
  if constexpr (C::kConverts) __syncthreads();
}

template <class C, Variant kVariant>
FNCE_DEVICE void compute(const MainParams& p, const ColumnTile& tile, const Shared<C>& shared,
                         const Anchors<C>& anchors, int step, RunningRows<C>& rows, Sums<C>& o,
                         Statistics<C>* statistics) {
  const bool mixes = kVariant == Variant::kMixed || (kVariant == Variant::kStatistics && p.mix);
  const bool is_union = mixes && p.is_union && tile.segment == 0;
  const int stage = C::kConverts ? 0 : step % C::kStages;
  const Place<C> place = Place<C>::of(thread_in_loop<C>());
  Scores<C> s;
  // Split operands promise float32, statistics how exact ranks are (math/stats.h).
  constexpr bool kRounds = C::kPlanes > 1 || kVariant == Variant::kStatistics;
  if constexpr (C::kDividesFeatures)
    multiply_scores<C, kRounds>(shared, place, stage, anchors, s);
  else
    multiply_scores<C, kRounds>(shared, place, stage, s);
  const Columns<C> columns = {shared.lambda(step) + place.first_column(), shared.scale() + place.row(0, 0),
                              tile.valid - place.first_column(), place.lane};
  const Segment& segment = p.segments[tile.segment];
  if constexpr (kVariant == Variant::kStatistics)
    gather_statistics<C>(p, segment, columns, mixes, is_union, shared, place, s, *statistics);
  if (!segment.in_loss) return;
  if (!p.sums) check_scores<C>(s, rows);
  prepare_scores<C>(columns, mixes, is_union, s, rows, o);
  FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g) {
    Weights<C> w;
    make_weights<C>(columns, mixes, is_union, g, s, rows, w);
    if (p.sums) multiply_sums<C>(shared, place, stage, g, w, o);
  }
}

template <class C, Variant kVariant>
FNCE_DEVICE void run(const MainParams& p, unsigned char* memory) {
  const Shared<C> shared = {memory};
  const Place<C> place = Place<C>::of(static_cast<int>(threadIdx.x));
  const Walk walk = walk_of(p, blockIdx.y);
  RunningRows<C> rows;
  Sums<C> o;
  start_rows<C>(p, shared, place, rows, o);
  Statistics<C> statistics;
  if constexpr (kVariant == Variant::kStatistics) start_statistics<C>(p, shared, statistics);

  // ---- MAIN LOOP
  Anchors<C> anchors;
  ColumnInfo next = start_loads<C>(p, walk, shared, place, anchors);
  float extent = 0.0f;
  for (int step = 0; step < walk.steps; ++step) {
    advance<C>(p, walk, shared, step, next, extent);
    compute<C, kVariant>(p, tile_at<C>(p, walk, step), shared, anchors, step, rows, o, &statistics);
  }

  // ---- EPILOGUE
  cp_async_wait<0>();
  __syncthreads();
  const Place<C> at_end = Place<C>::of(thread_read_again());
  merge_column_warps<C>(shared, at_end, rows, o);
  write_rows<C>(p, at_end, rows, o, columns_of_tiles(p, C::kColumns, walk.first, walk.first + walk.steps));
  if constexpr (kVariant == Variant::kStatistics) write_statistics<C>(p, shared, at_end, statistics);
  if constexpr (C::kConverts) {
    if (p.queue_extent) write_extent<C>(p, shared, extent);
  }
}

template <Operand kOperand, int kIndex, Variant kVariant>
__global__ void __launch_bounds__(tile_of(kOperand, kIndex).threads(), 1)
    infonce_main(const __grid_constant__ MainParams p) {
  FNCE_DYNAMIC_SHARED(memory);
  run<Config<kOperand, kIndex>, kVariant>(p, memory);
}

}  // namespace fnce::cuda::sm80
