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

// g_q^ is the positive's share, and where a = q^ also the anchor's (else o_mean is 0). The sum comes first, which
// spares the rounding of two products.
template <class T>
FNCE_HD T gradient_query_mixed(T scale, T k_mixed, T o_mean) {
  return scale * (o_mean - k_mixed);
}

template <class T>
FNCE_HD T gradient_key_mixed(T scale, T q_mixed) {
  return -scale * q_mixed;
}

// The gradient of the temperature, with pos = s+, neg_mean = (a . o_mean) / temperature.
template <class T>
FNCE_HD T gradient_temperature(T w, T pos, T neg_mean, T temperature) {
  return w * (pos - neg_mean) / temperature;
}

// The entropy of the softmax over all columns, equation (9), is loss + temperature * gradient_temperature.
template <class T>
FNCE_HD T row_entropy(T loss, T w, T pos, T neg_mean) {
  return loss + w * (pos - neg_mean);
}

}  // namespace fnce
