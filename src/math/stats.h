// Score statistics of a row, equation (9): mean and variance merged by Chan's formula, ranks with ties. T is float or
// double. Scores are inner products before the division by the temperature.
#pragma once

#include "math/hd.h"

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
