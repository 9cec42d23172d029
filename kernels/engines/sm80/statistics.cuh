// Score statistics of a warp's rows, equation (9): a lane gathers its own keys of a row, quad by quad.
#pragma once
#include "kernels/engines/sm80/softmax.cuh"
#include "math/stats.h"

namespace fnce::cuda::sm80 {

// What a lane, and later a key warp, has seen of one row. How many columns that were is the same for all its rows.
struct RowStatistics {
  float mean, m2, min, max;
  int32_t n_greater, n_greater_equal;
};

// The log-sum-exp of the unmixed scores: exact, without laziness, a lane by itself.
struct RowLogSum {
  float m, l;  // base 2
};

FNCE_DEVICE RowStatistics no_statistics() { return {0.0f, 0.0f, __builtin_huge_valf(), -__builtin_huge_valf(), 0, 0}; }

// `x`: scores before the temperature, of which the first `count` exist; `before` columns came before.
FNCE_DEVICE void add_quad(const float (&x)[4], int count, int before, float upper, float lower, RowStatistics& row) {
  float sum = 0.0f, squares = 0.0f;
  FNCE_UNROLL for (int v = 0; v < 4; ++v) sum += v < count ? x[v] : 0.0f;
  const float mean = sum / static_cast<float>(count);
  FNCE_UNROLL for (int v = 0; v < 4; ++v) {
    if (v >= count) continue;
    squares += (x[v] - mean) * (x[v] - mean);
    row.min = fminf(row.min, x[v]);
    row.max = fmaxf(row.max, x[v]);
    row.n_greater += x[v] > upper;           // is_greater of math/stats.h, its threshold computed before
    row.n_greater_equal += !(x[v] < lower);  // is_greater_or_tied
  }
  const Moments<float> both = merge(Moments<float>{before, row.mean, row.m2}, Moments<float>{count, mean, squares});
  row.mean = both.mean;
  row.m2 = both.m2;
}

FNCE_DEVICE void add_log_sum(const float (&x)[4], int count, float scale, RowLogSum& sum) {
  float s[4], most = sum.m;
  FNCE_UNROLL for (int v = 0; v < 4; ++v) {
    s[v] = v < count ? mul_rn(x[v], scale) : kMinusInfinityScore;
    most = fmaxf(most, s[v]);
  }
  float l = sum.l * exp2_approx(sum.m - most);
  FNCE_UNROLL for (int v = 0; v < 4; ++v) l += exp2_approx(add_rn(s[v], -most));
  sum = {most, l};
}

// The rows of two lanes or warps and their numbers of columns.
FNCE_DEVICE RowStatistics merge_statistics(const RowStatistics& a, int count_a, const RowStatistics& b, int count_b) {
  const Moments<float> both = merge(Moments<float>{count_a, a.mean, a.m2}, Moments<float>{count_b, b.mean, b.m2});
  return {both.mean,
          both.m2,
          fminf(a.min, b.min),
          fmaxf(a.max, b.max),
          a.n_greater + b.n_greater,
          a.n_greater_equal + b.n_greater_equal};
}

FNCE_DEVICE RowLogSum merge_log_sums(const RowLogSum& a, const RowLogSum& b) {
  const float m = fmaxf(a.m, b.m);
  return {m, a.l * exp2_approx(a.m - m) + b.l * exp2_approx(b.m - m)};
}

FNCE_DEVICE RowStatistics shuffled(const RowStatistics& a, int mask) {
  return {__shfl_xor_sync(kFullWarp, a.mean, mask),      __shfl_xor_sync(kFullWarp, a.m2, mask),
          __shfl_xor_sync(kFullWarp, a.min, mask),       __shfl_xor_sync(kFullWarp, a.max, mask),
          __shfl_xor_sync(kFullWarp, a.n_greater, mask), __shfl_xor_sync(kFullWarp, a.n_greater_equal, mask)};
}

// Over the four lanes of a row, lower lanes first: all of them get the same bits.
FNCE_DEVICE RowStatistics merge_lanes(RowStatistics row, int& count, int lane) {
  for (int mask = 1; mask <= 2; mask *= 2) {
    const RowStatistics other = shuffled(row, mask);
    const int others = __shfl_xor_sync(kFullWarp, count, mask);
    row = lane & mask ? merge_statistics(other, others, row, count) : merge_statistics(row, count, other, others);
    count += others;
  }
  return row;
}

FNCE_DEVICE RowLogSum merge_lanes(RowLogSum sum, int lane) {
  for (int mask = 1; mask <= 2; mask *= 2) {
    const RowLogSum other = {__shfl_xor_sync(kFullWarp, sum.m, mask), __shfl_xor_sync(kFullWarp, sum.l, mask)};
    sum = lane & mask ? merge_log_sums(other, sum) : merge_log_sums(sum, other);
  }
  return sum;
}

// Both sets of a warp's rows, [row tile][register half].
template <class C>
struct Statistics {
  int counts[2];  // columns the lane has seen, of each set
  RowStatistics sets[2][C::kMi][2];
  RowLogSum unmixed[C::kMi][2];
};

template <class C>
FNCE_DEVICE void start_statistics(const MainParams& p, const Shared<C>& shared, Statistics<C>& out) {
  for (int i = static_cast<int>(threadIdx.x); i < C::kRows; i += C::kThreads) {
    const uint32_t row = blockIdx.x * C::kRows + static_cast<uint32_t>(i);
    shared.unit()[i] = p.packed.scale[row];
    FNCE_UNROLL for (int set = 0; set < 2; ++set) {
      const bool exists = p.statistics[set] && row < p.n;
      shared.upper(set)[i] = exists ? p.thresholds.upper[set][row] : 0.0f;
      shared.lower(set)[i] = exists ? p.thresholds.lower[set][row] : 0.0f;
    }
  }
  out.counts[0] = out.counts[1] = 0;
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) {
    FNCE_UNROLL for (int set = 0; set < 2; ++set) out.sets[set][mi][h] = no_statistics();
    out.unmixed[mi][h] = {kMinusInfinity, 0.0f};
  }
}

// The scores of one tile, before prepare_scores changes them. `in_loss` and `unmixed`: of the tile's segment.
template <class C>
FNCE_DEVICE void gather_statistics(const MainParams& p, const Segment& segment, const Keys<C>& keys, bool mixes,
                                   const Shared<C>& shared, const Place<C>& place, Scores<C>& s, Statistics<C>& out) {
  const bool of_loss = p.statistics[0] && segment.in_loss, both = of_loss && mixes && p.is_union;
  FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g) {
    const Quad quad = quad_of<C>(keys, g);
    const int count = quad.count;
    if (count > 0) {
      FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) {
        const int row = place.row(mi, h);
        const float unit = shared.unit()[row];
        float raw[4], mixed[4];
        FNCE_UNROLL for (int v = 0; v < 4; ++v) mixed[v] = raw[v] = member(s[mi][g], h, v);
        if (segment.unmixed) add_log_sum(raw, count, keys.scale(mi, h), out.unmixed[mi][h]);
        if (mixes) mix_quad(quad, raw, mixed);
        FNCE_UNROLL for (int v = 0; v < 4; ++v) {
          raw[v] *= unit;
          mixed[v] *= unit;
        }
        const float upper = shared.upper(0)[row], lower = shared.lower(0)[row];
        if (of_loss) add_quad(mixed, count, out.counts[0], upper, lower, out.sets[0][mi][h]);
        if (both) add_quad(raw, count, out.counts[0] + count, upper, lower, out.sets[0][mi][h]);
        if (segment.unmixed)
          add_quad(raw, count, out.counts[1], shared.upper(1)[row], shared.lower(1)[row], out.sets[1][mi][h]);
      }
    }
    out.counts[0] += of_loss ? (both ? 2 * count : count) : 0;
    out.counts[1] += segment.unmixed ? count : 0;
  }
}

}  // namespace fnce::cuda::sm80
