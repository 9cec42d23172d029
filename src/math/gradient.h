// The gradient of a row's loss before mixing and normalisation are undone, equation (8), for one feature. T is float or
// double. scale = w / temperature; o_mean = sum over the negatives of softmax(s)_j z^_j, 0 without columns.
#pragma once

#include "math/hd.h"

namespace fnce {

// The anchor's share of g_q^ when a = q^, and the direct gradient of q when a = q.
template <class T>
FNCE_HD T gradient_anchor(T scale, T o_mean) {
  return scale * o_mean;
}

// g_q^: the positive's share, and the anchor's where a = q^ (o_mean = 0 else), without the rounding of two products.
template <class T>
FNCE_HD T gradient_query_mixed(T scale, T k_mixed, T o_mean) {
  return scale * (o_mean - k_mixed);
}

template <class T>
FNCE_HD T gradient_key_mixed(T scale, T q_mixed) {
  return -scale * q_mixed;
}

// Gradient of the temperature. pos = s+, neg_mean = (a . o_mean) / temperature.
template <class T>
FNCE_HD T gradient_temperature(T w, T pos, T neg_mean, T temperature) {
  return w * (pos - neg_mean) / temperature;
}

// Entropy of the softmax over all columns, equation (9): loss + temperature * gradient_temperature.
template <class T>
FNCE_HD T row_entropy(T loss, T w, T pos, T neg_mean) {
  return loss + w * (pos - neg_mean);
}

}  // namespace fnce
