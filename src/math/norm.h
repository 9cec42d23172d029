// L2 normalisation y = v / max(|v|, epsilon), equations (1) and (4), and its backward rule, equation (8), as scalars of
// a row. T is float or double. A NaN norm makes the whole row NaN.
#pragma once

#include "math/hd.h"

namespace fnce {

// y = v * inverse_norm. epsilon must be at least the smallest normal number, so that the inverse is finite.
template <class T>
FNCE_HD T inverse_norm(T norm, T epsilon) {
  return T(1) / (norm < epsilon ? epsilon : norm);
}

// The same, but NaN where the norm overflowed, because a row of zeros would pass for a result.
template <class T>
FNCE_HD T checked_inverse_norm(T norm, T epsilon) {
  return inverse_norm(norm, epsilon) + (norm - norm);
}

// g_v = along_g * g - along_y * y: (g - (g.y) y) / |v| where |v| >= epsilon, g / epsilon below.
template <class T>
struct NormBackward {
  T along_g, along_y;
};

template <class T>
FNCE_HD NormBackward<T> norm_backward(T norm, T epsilon, T g_dot_y) {
  const T inverse = inverse_norm(norm, epsilon);
  return NormBackward<T>{inverse, norm >= epsilon ? inverse * g_dot_y : T(0)};
}

template <class T>
FNCE_HD T apply(NormBackward<T> rule, T g, T y) {
  return fma_rn(-rule.along_y, y, rule.along_g * g);
}

}  // namespace fnce
