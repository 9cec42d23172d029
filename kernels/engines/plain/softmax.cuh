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

// How many there are, for every lane.
FNCE_DEVICE int count_of(const Scores& s) {
  int count = 0;
  for (int h = 0; h < kHalves; ++h) count += s.valid[h];
  return reduce_warp(count, Add());
}

// Adds a tile's scores of one row to set `set` of its statistics, equation (9). Lane 0 writes.
FNCE_DEVICE void add_statistics(const MainParams& p, const Scores& s, int columns, int64_t row, int set,
                                RunningRow& state) {
  if (p.masked) columns = count_of(s);
  if (columns == 0) return;
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
FNCE_DEVICE void weigh(const ColumnTile& tile, const Scores& raw, const Scores& mixed, int r, float scale,
                       Shared& shared) {
  RunningRow& state = shared.state[r];
  const bool counts_raw = !tile.mixes || tile.is_union;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float m = state.loss.m;
  if (tile.mixes) m = raised_maximum(m, mixed, scale);
  if (counts_raw) m = raised_maximum(m, raw, scale);
  float weight[kHalves], sum = 0.0f;
  for (int h = 0; h < kHalves; ++h) {
    weight[h] = counts_raw && raw.valid[h] ? weight_of(raw.value[h], scale, m) : 0.0f;
    sum += weight[h];
  }
  if (tile.mixes) {
    float* const weights = shared.weights + r * kScoreStride;
    for (int h = 0; h < kHalves; ++h) {
      const float x = mixed.valid[h] ? weight_of(mixed.value[h], scale, m) : 0.0f;
      weights[lane + 32 * h] = x;
      sum += x;
    }
    __syncwarp();
    for (int h = 0; h < kHalves; ++h) {
      const int j = lane + 32 * h;
      if (j >= tile.columns) continue;
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
FNCE_DEVICE void meet(const ColumnTile& tile, const Scores& raw, float scale, const Shared& shared, RunningRow& state) {
  bool finite = is_finite(scale);
  for (int h = 0; h < kHalves; ++h)
    finite = finite && !(raw.valid[h] && shared.bad[static_cast<int>(threadIdx.x) % 32 + 32 * h]);
  finite = !__any_sync(kFullWarp, !finite);
  const int count = tile.segment.in_loss ? count_of(raw) * (tile.is_union ? 2 : 1) : 0;
  if (threadIdx.x % 32 == 0) state.met = both(state.met, {count, finite});
}

// ---- Masks ----------------------------------------------------------------------------------------------------------

// The scores of a tile for one row: its columns as they are, for the loss and for the unmixed statistics, and mixed.
struct RowOfTile {
  Scores raw, unmixed, mixed;
};

// The same with only those columns that count for the row, whose scores are no numbers where the column is not finite.
FNCE_DEVICE void leave_out(const MainParams& p, const ColumnTile& tile, int64_t row, const Shared& shared,
                           RowOfTile& s) {
  const RowMask of_loss = row_mask(p, 0, row), of_unmixed = row_mask(p, 1, row);
  for (int h = 0; h < kHalves; ++h) {
    const int j = static_cast<int>(threadIdx.x) % 32 + 32 * h;
    if (j >= tile.columns) continue;
    const ColumnMask& own = shared.masks[j];
    if (own.spoiled || (shared.bad[j] & kBadRow)) s.raw.value[h] = nan_float();
    s.unmixed.value[h] = s.raw.value[h];
    s.raw.valid[h] = counts(own, of_loss, s.raw.value[h]);
    s.unmixed.valid[h] = counts(own, of_unmixed, s.unmixed.value[h]);
    if (!tile.mixes) continue;
    const int next = partner(j, tile.columns, true);
    if (own.spoiled || shared.bad[j] || (shared.bad[next] & kBadRow)) s.mixed.value[h] = nan_float();
    s.mixed.valid[h] = counts(own, of_loss, s.mixed.value[h]) && !names(shared.masks[next], of_loss);
  }
}

// The columns that count, of which one that is no number spoils the row.
FNCE_DEVICE void meet_those_that_count(const ColumnTile& tile, const RowOfTile& s, float scale, RunningRow& state) {
  bool finite = is_finite(scale);
  int count = 0;
  const auto add = [&](const Scores& kind) {
    for (int h = 0; h < kHalves; ++h) {
      count += kind.valid[h];
      finite = finite && !(kind.valid[h] && kind.value[h] != kind.value[h]);
    }
  };
  if (tile.segment.in_loss && tile.mixes) add(s.mixed);
  if (tile.segment.in_loss && (!tile.mixes || tile.is_union)) add(s.raw);
  finite = !__any_sync(kFullWarp, !finite);
  count = reduce_to_lane_0(count, Add());
  if (threadIdx.x % 32 == 0) state.met = both(state.met, {count, finite});
}

// Inner products become what the softmax takes, but for the temperature, equation (15).
FNCE_DEVICE void add_biases(const ColumnTile& tile, const Shared& shared, Scores& s) {
  for (int h = 0; h < kHalves; ++h) {
    const int j = static_cast<int>(threadIdx.x) % 32 + 32 * h;
    if (j < tile.columns && s.valid[h]) s.value[h] += shared.masks[j].bias;
  }
}

// Everything that follows from one row of a tile's raw scores.
FNCE_DEVICE void finish_row_of_tile(const MainParams& p, const ColumnTile& tile, int64_t row, int r, float scale,
                                    Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* const scores = shared.scores + r * kScoreStride;
  RowOfTile s;
  for (int h = 0; h < kHalves; ++h) {
    const int j = lane + 32 * h;
    s.raw.valid[h] = s.mixed.valid[h] = j < tile.columns;
    s.raw.value[h] = s.raw.valid[h] ? scores[j] : 0.0f;
    s.mixed.value[h] = 0.0f;
    if (tile.mixes && s.mixed.valid[h])
      s.mixed.value[h] = mix(shared.lambda[j], s.raw.value[h], scores[partner(j, tile.columns, true)]);
  }
  s.unmixed = s.raw;
  RunningRow& state = shared.state[r];
  if (p.masked) {
    leave_out(p, tile, row, shared, s);
    meet_those_that_count(tile, s, scale, state);
  } else {
    meet(tile, s.raw, scale, shared, state);
  }
  const bool of_loss = p.statistics[0] && tile.segment.in_loss;
  if (p.statistics[1] && tile.segment.unmixed) {
    add_statistics(p, s.unmixed, tile.columns, row, 1, state);
    if (p.masked) add_biases(tile, shared, s.unmixed);
    add_unmixed_log_sum(s.unmixed, scale, state);
  }
  if (of_loss && tile.mixes) add_statistics(p, s.mixed, tile.columns, row, 0, state);
  if (of_loss && (!tile.mixes || tile.is_union)) add_statistics(p, s.raw, tile.columns, row, 0, state);
  if (!tile.segment.in_loss) return;
  if (p.masked) {
    add_biases(tile, shared, s.raw);
    add_biases(tile, shared, s.mixed);
  }
  __syncwarp();
  weigh(tile, s.raw, s.mixed, r, scale, shared);
}

}  // namespace fnce::cuda::plain
