// Columns beyond the queue, equations (13)-(15): what of a column is read from which of its rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "oracle/oracle.h"

namespace oracle {

inline bool finite_range(const std::vector<double>& values, int64_t first, int64_t count) {
  return std::all_of(values.begin() + first, values.begin() + first + count, [](double x) { return std::isfinite(x); });
}

inline bool all_finite(const std::vector<double>& values) { return finite_range(values, 0, int64_t(values.size())); }

// True if column j of the loss and its bias are made of finite numbers.
bool column_is_finite(const Inputs& inputs, int64_t j);

// Biases of the loss's columns, and of the raw rows of the queue with the batch columns behind them; 0 without any.
template <class T>
std::vector<T> bias_of_loss(const Inputs& inputs);
template <class T>
std::vector<T> bias_of_raw(const Inputs& inputs);

}  // namespace oracle
