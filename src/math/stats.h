// Score statistics of a row, equation (9): mean and variance merged by Chan's formula, extremes, ranks with ties. T is
// float or double. Scores are inner products before the division by the temperature.
#pragma once

#include "math/lse.h"

namespace fnce {

// m2 is the sum of squared deviations from the mean.
template <class T>
struct Moments {
  int64_t count = 0;
  T mean = T(0);
  T m2 = T(0);
};

// An empty side leaves the other as it is, to the bit. The order of merging is fixed by the caller.
template <class T>
FNCE_HD Moments<T> merge(Moments<T> x, Moments<T> y) {
  if (y.count == 0) return x;
  if (x.count == 0) return y;
  const int64_t count = add_wrapping(x.count, y.count);
  const T share = static_cast<T>(y.count) / static_cast<T>(count);
  const T delta = y.mean - x.mean;
  return Moments<T>{count, fma_rn(delta, share, x.mean),
                    fma_rn(delta * delta, static_cast<T>(x.count) * share, x.m2 + y.m2)};
}

// The unbiased variance, as torch.var gives it: NaN for fewer than two scores.
template <class T>
FNCE_HD T variance(Moments<T> moments) {
  const T freedom = static_cast<T>(add_wrapping(moments.count, -1));
  return freedom > T(0) ? moments.m2 / freedom : static_cast<T>(__builtin_nanf(""));
}

// What is gathered of one row's scores over some of its columns; at first of none. T is what sums are made in; the
// extremes are scores as they were computed. Count is int32_t inside a pass and int64_t where passes are merged.
// core/stats.h takes it from memory and puts it there.
template <class T, class Count = int64_t>
struct RowStats {
  Count count = 0;
  T mean = T(0), m2 = T(0);
  float min = __builtin_huge_valf(), max = -__builtin_huge_valf();
  Count n_greater = 0, n_greater_equal = 0;
};

template <class T, class Count>
FNCE_HD Moments<T> moments_of(const RowStats<T, Count>& stats) {
  return Moments<T>{stats.count, stats.mean, stats.m2};
}

template <class T, class Count>
FNCE_HD RowStats<T, Count> merge(const RowStats<T, Count>& x, const RowStats<T, Count>& y) {
  const Moments<T> moments = merge(moments_of(x), moments_of(y));
  RowStats<T, Count> both;
  both.count = static_cast<Count>(moments.count);
  both.mean = moments.mean;
  both.m2 = moments.m2;
  both.min = y.min < x.min ? y.min : x.min;
  both.max = y.max > x.max ? y.max : x.max;
  both.n_greater = static_cast<Count>(add_wrapping(x.n_greater, y.n_greater));
  both.n_greater_equal = static_cast<Count>(add_wrapping(x.n_greater_equal, y.n_greater_equal));
  return both;
}

// What a pass or a merge leaves behind, in float32. Comparisons pass over a NaN; the mean does not, and takes the
// extremes along.
template <class T>
FNCE_HD RowStats<float> rounded_stats(const RowStats<T>& stats) {
  const bool finite = is_finite(stats.mean);
  RowStats<float> out;
  out.count = stats.count;
  out.mean = static_cast<float>(stats.mean);
  out.m2 = static_cast<float>(stats.m2);
  out.min = finite ? stats.min : __builtin_nanf("");
  out.max = finite ? stats.max : __builtin_nanf("");
  out.n_greater = stats.n_greater;
  out.n_greater_equal = stats.n_greater_equal;
  return out;
}

// Scores that are closer than this tie, because rounding alone moves them that far.
template <class T>
FNCE_HD T tie_tolerance(T anchor_norm, T pos) {
  const T magnitude = pos < T(0) ? -pos : pos;
  return T(8 * 1.1920928955078125e-7) * (anchor_norm > magnitude ? anchor_norm : magnitude);
}

template <class T>
FNCE_HD bool is_greater(T neg, T pos, T tolerance) {
  return neg > pos + tolerance;
}

// This asks for "not below", so that a NaN does not count as a hit of the positive.
template <class T>
FNCE_HD bool is_greater_or_tied(T neg, T pos, T tolerance) {
  return !(neg < pos - tolerance);
}

}  // namespace fnce
