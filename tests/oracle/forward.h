// Steps of the oracle shared by its files: equations (1)-(6), each as the page states it.
#pragma once

#include <cmath>
#include <vector>

#include "oracle/oracle.h"

namespace oracle {

// Fills q, k, their norms, the mixed pair, its norms, the anchor and the batch columns: equations (1), (2), (4), (6),
// (13).
template <class T>
void embed(const Inputs& inputs, Result<T>& out);

// Equations (3)-(5) and (13): the columns that the positive competes with.
template <class T>
std::vector<T> negative_columns(const Inputs& inputs);

// The same before the mixed rows are rounded.
std::vector<double> unrounded_columns(const Inputs& inputs);

// Raw rows as the columns of unmixed and plain scores: those of `queue`, and the batch columns as they are multiplied.
template <class T>
std::vector<T> raw_columns(const Inputs& inputs, std::vector<T> queue);

// Positives as ranks see them, [N]: the query as the products take it, the key as a row of the queue.
template <class T>
std::vector<T> rank_positives(const Inputs& inputs, const std::vector<T>& q, const std::vector<T>& k);

// Inner products of row i with row i, [N].
template <class T>
std::vector<T> row_products(const std::vector<T>& a, const std::vector<T>& b, int64_t n, int64_t d);

// All inner products of rows [N,D] and columns [C,D].
template <class T>
std::vector<T> inner_products(const std::vector<T>& rows, const std::vector<T>& columns, int64_t n, int64_t d);

template <class T>
T norm_of(const T* row, int64_t d) {
  T sum = 0;
  for (int64_t c = 0; c < d; ++c) sum += row[c] * row[c];
  return std::sqrt(sum);
}

// y = v / max(|v|, epsilon); returns |v|.
template <class T>
T normalize_row(T* row, int64_t d, T epsilon) {
  const T norm = norm_of(row, d);
  const T divisor = norm > epsilon || std::isnan(norm) ? norm : epsilon;
  for (int64_t c = 0; c < d; ++c) row[c] /= divisor;
  return norm;
}

}  // namespace oracle
