// Running logsumexp over the negatives and the loss of a row, equation (7). T is float or double; natural logarithms.
// Maxima start at a finite number, so that no step subtracts infinities and a row without columns needs no special
// case: its loss and weight come out as exact zeros.
#pragma once

#if !defined(__CUDACC__)
#include <cmath>
#endif

#include "math/hd.h"

namespace fnce {

constexpr float kMinusInfinity = -1e30f;
constexpr double kLog2e = 1.44269504088896340736, kLn2 = 0.69314718055994530942;

FNCE_HD float exp_of(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  return __builtin_expf(x);
#endif
}
FNCE_HD double exp_of(double x) { return exp(x); }

FNCE_HD float log_of(float x) {
#if defined(__CUDA_ARCH__)
  return logf(x);
#else
  return __builtin_logf(x);
#endif
}
FNCE_HD double log_of(double x) { return log(x); }

FNCE_HD float log1p_of(float x) {
#if defined(__CUDA_ARCH__)
  return log1pf(x);
#else
  return __builtin_log1pf(x);
#endif
}
FNCE_HD double log1p_of(double x) { return log1p(x); }

template <class T>
FNCE_HD T abs_of(T x) {
  return x < T(0) ? -x : x;
}

template <class T>
FNCE_HD bool is_finite(T x) {
  return x - x == T(0);
}

// 0 for a finite number, NaN for any other: added to a result, it keeps a non-finite input from vanishing.
template <class T>
FNCE_HD T nan_unless_finite(T x) {
  return x - x;
}

// The sum over scores s: m = max(-1e30, max s), l = sum exp(s - m). A score of -infinity stands for a column that is
// left out.
template <class T>
struct LogSum {
  T m = T(kMinusInfinity);
  T l = T(0);
};

template <class T>
FNCE_HD LogSum<T> push(LogSum<T> sum, T s) {
  const T m = s > sum.m ? s : sum.m;
  return LogSum<T>{m, sum.l * exp_of(sum.m - m) + exp_of(s - m)};
}

template <class T>
FNCE_HD LogSum<T> merge(LogSum<T> x, LogSum<T> y) {
  const T m = y.m > x.m ? y.m : x.m;
  return LogSum<T>{m, x.l * exp_of(x.m - m) + y.l * exp_of(y.m - m)};
}

// It is -1e30 without columns. A NaN sum stays NaN.
template <class T>
FNCE_HD T log_sum_exp(LogSum<T> sum) {
  return sum.l == T(0) ? T(kMinusInfinity) : sum.m + log_of(sum.l);
}

// The same, from m and l as memory holds them.
FNCE_HD double log_sum_exp(float m, float l) {
  return log_sum_exp(LogSum<double>{static_cast<double>(m), static_cast<double>(l)});
}

// exp(exact - rounded), by which l must be multiplied when its maximum is rounded. Beyond 2^24 it is 1, because there
// the difference is no small number any more and the maximum alone is the result.
FNCE_HD double rounding_correction(double exact, float rounded) {
  return abs_of(exact) < 16777216.0 ? exp_of(exact - static_cast<double>(rounded)) : 1.0;
}

// log(1 + e^x), computed so that a small result keeps its digits.
template <class T>
FNCE_HD T softplus(T x) {
  return (x > T(0) ? x : T(0)) + log1p_of(exp_of(-abs_of(x)));
}

template <class T>
FNCE_HD T sigmoid(T x) {
  const T e = exp_of(-abs_of(x));
  return (x >= T(0) ? T(1) : e) / (T(1) + e);
}

// l = logsumexp over all columns minus s+, w = 1 - p+. pos = s+ = (q^.k^) / temperature, lse over the negatives alone.
template <class T>
struct RowLoss {
  T loss, w;
};

template <class T>
FNCE_HD RowLoss<T> row_loss(T lse, T pos) {
  const T x = lse - pos;
  const T check = nan_unless_finite(x);
  return RowLoss<T>{softplus(x) + check, sigmoid(x) + check};
}

}  // namespace fnce
