// Errors planted into the oracle's own results, for tests of the tolerance policy: nothing of the library's arithmetic
// takes part.
#pragma once

#include <functional>
#include <vector>

#include "support/compare.h"

namespace support {

// 20 queries against a queue of noise, unit features, temperature 0.1. Lambdas are given, so that only the oracle
// computes. `mixes_rows`: what granularities per call and row may choose, as rows or as scores.
oracle::Inputs ordinary_inputs(int32_t granularity, oracle::Products products, int64_t k = 272,
                               bool mixes_rows = false);

// The oracle's results as the library would give them.
template <class T>
Outputs outputs_of(const oracle::Result<T>& from, oracle::Element gradient = oracle::Element::kFloat32);

bool accepts(const Truth& truth, const Outputs& outputs);

// Every entry to `digits` significant binary digits, towards zero or to the nearest.
double cut(double value, int digits, bool nearest);
std::vector<float> cut(std::vector<float> values, int digits, bool nearest);

// What becomes of a weight relative to the largest, exp(s - max - shift).
using WeightRounding = std::function<double(double)>;

// The truth's outputs without mixing of negatives, but the sums made of weights relative to another maximum, rounded,
// and without column `dropped`.
Outputs with_weights(const Truth& truth, double shift, const WeightRounding& rounding, int64_t dropped = -1);

// The truth's outputs, column `dropped` left out of the loss.
Outputs without_column(const Truth& truth, int64_t dropped);

}  // namespace support
