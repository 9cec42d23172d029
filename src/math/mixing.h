// Mixing, equations (2) and (3), and its gradient, equation (8). T is float or double.
#pragma once

#include "math/hd.h"

namespace fnce {

// lambda*x + (1 - lambda)*y. lambda = 1 gives x exactly.
//   (2)  q^ = mix(lambda, q, k)            k^ = mix(lambda, k, q)
//   (3)  z^_j = mix(lambda_j, z_j, z_pi(j)); scores mix the same way: a.z^_j = mix(lambda_j, a.z_j, a.z_pi(j))
// The matrix of (2) is symmetric, so the gradient of the pair is the same mixing of its gradients:
//   (8)  g_q = mix(lambda, g_q^, g_k^)     g_k = mix(lambda, g_k^, g_q^)
template <class T>
FNCE_HD T mix(T lambda, T x, T y) {
  return fma_rn(lambda, x, (T(1) - lambda) * y);
}

// The transpose of (3), for one raw row: its own part of the row it is mixed into, and its part as the partner of
// `before` = pi^-1(j):  lambda_j * p_j + (1 - lambda_before) * p_before.
template <class T>
FNCE_HD T mix_transposed(T lambda, T p, T lambda_before, T p_before) {
  return fma_rn(lambda, p, (T(1) - lambda_before) * p_before);
}

}  // namespace fnce
