// Score statistics of a warp's rows, equation (9): a lane gathers its own keys of a row, quad by quad.
#pragma once
#include "kernels/engines/sm80/softmax.cuh"
#include "kernels/rows/warp.cuh"
#include "math/lse.h"
#include "math/stats.h"

namespace fnce::cuda::sm80 {

// What a lane, and later a key warp, has seen of one row: both sets, and the log-sum-exp of the unmixed scores in base 2, which is
// exact, without laziness, a lane by itself.
struct RowScores {
  RowStats<float, int32_t> sets[2];
  LogSum<float> unmixed;
};

// `x`: scores before the temperature, of which the first `count` exist.
FNCE_DEVICE void add_quad(const float (&x)[4], int count, float upper, float lower, RowStats<float, int32_t>& row) {
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
  const Moments<float> both = merge(moments_of(row), Moments<float>{count, mean, squares});
  row.count += count;
  row.mean = both.mean;
  row.m2 = both.m2;
}

FNCE_DEVICE void add_log_sum(const float (&x)[4], int count, float scale, LogSum<float>& sum) {
  float s[4], most = sum.m;
  FNCE_UNROLL for (int v = 0; v < 4; ++v) {
    s[v] = v < count ? mul_rn(x[v], scale) : kMinusInfinityScore;
    most = fmaxf(most, s[v]);
  }
  float l = sum.l * exp2_approx(sum.m - most);
  FNCE_UNROLL for (int v = 0; v < 4; ++v) l += exp2_approx(add_rn(s[v], -most));
  sum = {most, l};
}

FNCE_DEVICE LogSum<float> merge_base2(const LogSum<float>& a, const LogSum<float>& b) {
  const float m = fmaxf(a.m, b.m);
  return {m, a.l * exp2_approx(a.m - m) + b.l * exp2_approx(b.m - m)};
}

// The rows of two lanes or warps.
FNCE_DEVICE RowScores merge(const RowScores& a, const RowScores& b) {
  return {{fnce::merge(a.sets[0], b.sets[0]), fnce::merge(a.sets[1], b.sets[1])}, merge_base2(a.unmixed, b.unmixed)};
}

// Over the four lanes of a row, lower lanes first: all of them get the same bits.
FNCE_DEVICE RowScores merge_lanes(RowScores row, int lane) {
  for (int mask = 1; mask <= 2; mask *= 2) {
    const RowScores other = shuffled_xor(row, mask);
    row = lane & mask ? merge(other, row) : merge(row, other);
  }
  return row;
}

// A warp's rows, [row tile][register half].
template <class C>
struct Statistics {
  RowScores rows[C::kMi][2];
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
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) out.rows[mi][h] = RowScores();
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
        RowScores& scores = out.rows[mi][h];
        const float unit = shared.unit()[row];
        float raw[4], mixed[4];
        FNCE_UNROLL for (int v = 0; v < 4; ++v) mixed[v] = raw[v] = member(s[mi][g], h, v);
        if (segment.unmixed) add_log_sum(raw, count, keys.scale(mi, h), scores.unmixed);
        if (mixes) mix_quad(quad, raw, mixed);
        FNCE_UNROLL for (int v = 0; v < 4; ++v) {
          raw[v] *= unit;
          mixed[v] *= unit;
        }
        const float upper = shared.upper(0)[row], lower = shared.lower(0)[row];
        if (of_loss) add_quad(mixed, count, upper, lower, scores.sets[0]);
        if (both) add_quad(raw, count, upper, lower, scores.sets[0]);
        if (segment.unmixed) add_quad(raw, count, shared.upper(1)[row], shared.lower(1)[row], scores.sets[1]);
      }
    }
  }
}

}  // namespace fnce::cuda::sm80
