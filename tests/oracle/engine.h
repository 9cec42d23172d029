// The sums of 16-bit products: what becomes of equations (8) and (9) where weights are rounded before they multiply the
// negatives.
#pragma once

#include <vector>

#include "oracle/oracle.h"

namespace oracle {

// Weights of columns, [columns], as weights of the rows that the engine multiplies: the K of the queue, after them the
// K mixed ones where there are any, and the batch columns. Where scores are mixed, a row of the queue collects what its
// own column, its partner's and its raw one give it; a negative that is mixed as a row has its own weight.
template <class T>
std::vector<T> engine_weights(const Inputs& inputs, const std::vector<T>& of_columns);

// Fills engine_rows: those rows, [K or 2K, and C; D].
template <class T>
void engine_rows(const Inputs& inputs, Result<T>& result);

// Fills engine_sum, [N,D]: the columns times their probabilities. In float32 the weights exp(s - max) are rounded.
template <class T>
void engine_sums(const Inputs& inputs, Result<T>& result);

// H = loss + w (s+ - a.o / tau) of row i, with the unrounded anchor.
template <class T>
T engine_entropy(const Inputs& inputs, T positive, int64_t i, const Result<T>& result);

}  // namespace oracle
