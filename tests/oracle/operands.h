// The roundings of each arithmetic of Products: those that are functions of the inputs, and the sizes of those that
// only a bound can describe.
#pragma once

#include <limits>
#include <vector>

#include "oracle/oracle.h"

namespace oracle {

// To the numbers of `element` times 2^-exponent; with `by_row` the exponent is that of each row, which brings its
// largest magnitude to [2^13, 2^14). The same row within float32's error has the same digits under either of two
// exponents; they only move the flushing of elements below 2^-27 of the largest, by 2^-38 of it.
struct Rounding {
  Element element = Element::kFloat32;
  int exponent = 0;
  bool by_row = false;
  double most = std::numeric_limits<double>::infinity();  // larger magnitudes stay as they are

  bool any() const { return element != Element::kFloat32; }
};

Rounding anchor_rounding(const Inputs& inputs);     // of what scores the negatives, and of the ranks' query
Rounding queue_rounding(const Inputs& inputs);      // of rows of the queue, as the loss multiplies them
Rounding mixed_row_rounding(const Inputs& inputs);  // of a negative that is mixed as a row
Rounding batch_rounding(const Inputs& inputs);      // of a batch column, whatever the products
Rounding rank_key_rounding(const Inputs& inputs);   // of the ranks' key, after the queue's type
Rounding weight_rounding(const Inputs& inputs);     // of the float32 twin's weights exp(s - max)

// True if anything is rounded before it is multiplied.
bool rounds_operands(const Inputs& inputs);

template <class T>
std::vector<T> rounded_rows(const Rounding& rounding, std::vector<T> rows, int64_t d);

// The exponent for a row of d entries.
template <class T>
int exponent_of(const Rounding& rounding, const T* row, int64_t d);

// The queue as rows of it are multiplied: by the loss, and by fnce_scores.
template <class T>
std::vector<T> multiplied_queue(const Inputs& inputs);
template <class T>
std::vector<T> queue_of_scores(const Inputs& inputs);

// The largest |lambda| + |1 - lambda| where scores are mixed, else 1, and 1 more for the raw column of a union: no
// weight of a row of the queue is larger than that times the largest weight of a column.
double weight_extent(const Inputs& inputs);

// Errors of a weight P, and of a value that is split in two, beyond what float32 makes of them.
struct WeightError {
  double relative = 0;  // of P: half a unit of its last place
  double groups = 0;    // weights of equal floor(groups * log P) may err alike; 0: all may
  double floor = 0;     // absolute, of the largest weight times weight_extent
  double below = 0;     // the floor acts on weights smaller than this, in the same unit
};
WeightError weight_error(const Inputs& inputs);

}  // namespace oracle
