// Score statistics of one row, equation (9): a lane gathers its own columns, quad by quad.
#pragma once
#include "kernels/pass/columns.cuh"
#include "kernels/pass/softmax.cuh"
#include "kernels/rows/warp.cuh"
#include "math/lse.h"
#include "math/stats.h"

namespace fnce::cuda {

// What a lane, and later a warp, has seen of one row: both sets, and the log-sum-exp of the unmixed scores in base 2,
// which is exact, without laziness, a lane by itself.
struct RowScores {
  RowStats<float, int32_t> sets[2];
  LogSum<float> unmixed;
};

// Adds a quad's scores `x`, before the temperature, of which at least one exists. `before` is how many columns the lane
// has seen of the row; the caller counts them, so that rows which see the same columns can share a register.
FNCE_DEVICE void add_quad(const Quad& quad, const float (&x)[4], int32_t before, float upper, float lower,
                          RowStats<float, int32_t>& row) {
  const int count = quad.existing;
  float sum = 0.0f, squares = 0.0f;
  FNCE_UNROLL for (int v = 0; v < 4; ++v) sum += exists(quad, v) ? x[v] : 0.0f;
  const float mean = sum / static_cast<float>(count);
  FNCE_UNROLL for (int v = 0; v < 4; ++v) {
    if (!exists(quad, v)) continue;
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

FNCE_DEVICE void add_log_sum(const Quad& quad, const float (&x)[4], float scale, LogSum<float>& sum) {
  float s[4], most = sum.m;
  FNCE_UNROLL for (int v = 0; v < 4; ++v) {
    s[v] = exists(quad, v) ? mul_rn(x[v], scale) : kMinusInfinityScore;
    most = fmaxf(most, s[v]);
  }
  float l = sum.l * exp2_approx(sum.m - most);
  FNCE_UNROLL for (int v = 0; v < 4; ++v) l += exp2_approx(add_rn(s[v], -most));
  sum = {most, l};
}

// Merges what two lanes or warps have seen of a row.
FNCE_DEVICE RowScores merge(const RowScores& a, const RowScores& b) {
  return {{fnce::merge(a.sets[0], b.sets[0]), fnce::merge(a.sets[1], b.sets[1])}, merge_base2(a.unmixed, b.unmixed)};
}

// Merges over the four lanes of a row, lower lanes first: all of them get the same bits.
FNCE_DEVICE RowScores merge_lanes(RowScores row, int lane) {
  for (int mask = 1; mask <= 2; mask *= 2) {
    const RowScores other = shuffled_xor(row, mask);
    row = lane & mask ? merge(other, row) : merge(row, other);
  }
  return row;
}

}  // namespace fnce::cuda
