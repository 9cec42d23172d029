// The softmax and the statistics of one row of scores, done by one warp: lane i has the columns i and i + 32 of the
// tile.
#pragma once
#include "kernels/engines/plain/tile.cuh"
#include "kernels/rows/warp.cuh"
#include "math/mixing.h"
#include "math/permutation.h"

namespace fnce::cuda::plain {

constexpr int kHalves = kColumns / 32;  // columns of a lane

// 2^(scale * score - m). The product is rounded as the maximum was: fused, a score of 1e8 would miss its own maximum by
// more than an exponential can hold.
FNCE_DEVICE float weight_of(float score, float scale, float m) { return exp2f(mul_rn(score, scale) - m); }

// The scores of one kind that a lane has, and which of them are there.
struct Scores {
  float value[kHalves];
  bool valid[kHalves];
};

// Adds a tile's scores of one row to set `set` of its statistics, equation (9). Lane 0 writes.
FNCE_DEVICE void add_statistics(const MainParams& p, const Scores& s, int columns, int64_t row, int set,
                                RunningRow& state) {
  const float upper = p.thresholds.upper[set][row], lower = p.thresholds.lower[set][row];
  RowStats<float> tile;
  float sum = 0.0f;
  int greater = 0, greater_equal = 0;
  for (int h = 0; h < kHalves; ++h) {
    if (!s.valid[h]) continue;
    const float x = s.value[h];
    sum += x;
    tile.min = x < tile.min ? x : tile.min;
    tile.max = x > tile.max ? x : tile.max;
    greater += x > upper;
    greater_equal += !(x < lower);  // a NaN must not count as a hit of the positive
  }
  tile.count = columns;
  tile.mean = reduce_warp(sum, Add()) / static_cast<float>(columns);
  for (int h = 0; h < kHalves; ++h)
    if (s.valid[h]) tile.m2 = fma_rn(s.value[h] - tile.mean, s.value[h] - tile.mean, tile.m2);
  tile.m2 = reduce_to_lane_0(tile.m2, Add());
  tile.min = -reduce_to_lane_0(-tile.min, Max());
  tile.max = reduce_to_lane_0(tile.max, Max());
  tile.n_greater = reduce_to_lane_0(greater, Add());
  tile.n_greater_equal = reduce_to_lane_0(greater_equal, Add());
  if (threadIdx.x % 32 == 0) state.sets[set] = merge(state.sets[set], tile);
}

// What a row's maximum becomes with these scores. Nothing is written.
FNCE_DEVICE float raised_maximum(float m, const Scores& s, float scale) {
  float top = m;
  for (int h = 0; h < kHalves; ++h) {
    const float x = mul_rn(s.value[h], scale);
    top = s.valid[h] && x > top ? x : top;
  }
  return reduce_warp(top, Max());
}

FNCE_DEVICE void add_unmixed_log_sum(const Scores& raw, float scale, RunningRow& state) {
  const float m = raised_maximum(state.unmixed.m, raw, scale);
  float sum = 0.0f;
  for (int h = 0; h < kHalves; ++h) sum += raw.valid[h] ? weight_of(raw.value[h], scale, m) : 0.0f;
  sum = reduce_warp(sum, Add());
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    state.unmixed.l = fma_rn(state.unmixed.l, exp2f(state.unmixed.m - m), sum);
    state.unmixed.m = m;
  }
  __syncwarp();
}

// Neighbour of column j in its cycle of C. Only the last group of all columns can be cut short.
FNCE_DEVICE int partner(int j, int columns, bool next) {
  const int group = j & ~15, size = columns - group < 16 ? columns - group : 16;
  const auto i = static_cast<uint32_t>(j - group), n = static_cast<uint32_t>(size);
  return group + static_cast<int>(next ? cycle_next(i, n) : cycle_previous(i, n));
}

// Makes scores of one row weights of its raw rows, equations (3), (7), (8): it updates m, l and the row of
// shared.scores.
FNCE_DEVICE void weigh(const MainParams& p, const ColumnTile& tile, const Scores& raw, const Scores& mixed, int r,
                       float scale, Shared& shared) {
  RunningRow& state = shared.state[r];
  const bool counts_raw = !p.mix || p.is_union;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float m = state.loss.m;
  if (p.mix) m = raised_maximum(m, mixed, scale);
  if (counts_raw) m = raised_maximum(m, raw, scale);
  float weight[kHalves], sum = 0.0f;
  for (int h = 0; h < kHalves; ++h) {
    weight[h] = counts_raw && raw.valid[h] ? weight_of(raw.value[h], scale, m) : 0.0f;
    sum += weight[h];
  }
  if (p.mix) {
    float* const weights = shared.weights + r * kScoreStride;
    for (int h = 0; h < kHalves; ++h) {
      const float x = mixed.valid[h] ? weight_of(mixed.value[h], scale, m) : 0.0f;
      weights[lane + 32 * h] = x;
      sum += x;
    }
    __syncwarp();
    for (int h = 0; h < kHalves; ++h) {
      const int j = lane + 32 * h;
      if (!mixed.valid[h]) continue;
      const int before = partner(j, tile.columns, false);
      weight[h] += mix_transposed(shared.lambda[j], weights[j], shared.lambda[before], weights[before]);
    }
  }
  sum = reduce_warp(sum, Add());
  __syncwarp();
  for (int h = 0; h < kHalves; ++h) shared.scores[r * kScoreStride + lane + 32 * h] = weight[h];
  if (lane == 0) {
    shared.scale_factor[r] = exp2f(state.loss.m - m);
    state.loss.l = fma_rn(state.loss.l, shared.scale_factor[r], sum);
    state.loss.m = m;
  }
  __syncwarp();
}

// The tile's columns that the row has, by one warp.
FNCE_DEVICE void meet(const MainParams& p, const ColumnTile& tile, const Scores& raw, float scale, const Shared& shared,
                      RunningRow& state) {
  int count = 0;
  bool finite = is_finite(scale);
  for (int h = 0; h < kHalves; ++h) {
    count += raw.valid[h];
    finite = finite && !(raw.valid[h] && shared.bad[static_cast<int>(threadIdx.x) % 32 + 32 * h]);
  }
  finite = !__any_sync(kFullWarp, !finite);
  count = tile.segment.in_loss ? reduce_to_lane_0(count, Add()) * (p.is_union ? 2 : 1) : 0;
  if (threadIdx.x % 32 == 0) state.met = both(state.met, {count, finite});
}

// Everything that follows from one row of a tile's raw scores.
FNCE_DEVICE void finish_row_of_tile(const MainParams& p, const ColumnTile& tile, int64_t row, int r, float scale,
                                    Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* const scores = shared.scores + r * kScoreStride;
  Scores raw, mixed;
  for (int h = 0; h < kHalves; ++h) {
    const int j = lane + 32 * h;
    raw.valid[h] = mixed.valid[h] = j < tile.columns;
    raw.value[h] = raw.valid[h] ? scores[j] : 0.0f;
    mixed.value[h] = 0.0f;
    if (p.mix && mixed.valid[h])
      mixed.value[h] = mix(shared.lambda[j], raw.value[h], scores[partner(j, tile.columns, true)]);
  }
  RunningRow& state = shared.state[r];
  meet(p, tile, raw, scale, shared, state);
  if (p.statistics[1] && tile.segment.unmixed) {
    add_statistics(p, raw, tile.columns, row, 1, state);
    add_unmixed_log_sum(raw, scale, state);
  }
  if (!tile.segment.in_loss) return;
  if (p.statistics[0] && p.mix) add_statistics(p, mixed, tile.columns, row, 0, state);
  if (p.statistics[0] && (!p.mix || p.is_union)) add_statistics(p, raw, tile.columns, row, 0, state);
  __syncwarp();
  weigh(p, tile, raw, mixed, r, scale, shared);
}

}  // namespace fnce::cuda::plain
