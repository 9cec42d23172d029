// Which columns there are for a row, apart from what their scores are. A pass is cut into stretches of columns (the
// chunks of the CPU, the splits of a GPU), and each stretch leaves a maximum of each row that says what the row has
// met:
//   kNoColumn         no column of the stretch; l and O are 0
//   kMinusInfinity    columns whose scores all lay below this start of the maximum
//   another number    columns; it is their maximum
//   NaN               columns of which one is not finite
// A row that has met no column in any stretch is a row with K = 0. A row whose scores all lay below the start of the
// maximum is an overflow: float32 cannot weigh them.
#pragma once
#include <cstdint>

#include "math/lse.h"

namespace fnce {

constexpr float kNoColumn = -__builtin_huge_valf();

// What a row has met so far.
struct RowColumns {
  int64_t count = 0;   // columns of the loss
  bool finite = true;  // all of them, and those that only statistics are made of
};

FNCE_HD RowColumns both(const RowColumns& x, const RowColumns& y) {
  return RowColumns{add_wrapping(x.count, y.count), x.finite && y.finite};
}

// A running maximum in base 2 as a stretch that has ended leaves it.
FNCE_HD float ended_maximum(float m, const RowColumns& met) {
  if (!met.finite) return __builtin_nanf("");
  return met.count > 0 ? m : kNoColumn;
}

FNCE_HD float ended_sum(float l, const RowColumns& met) { return met.finite ? l : __builtin_nanf(""); }

// The maximum over all stretches of a row: the start of a maximum where the row has no column, NaN where all scores lay
// below it.
template <class T>
FNCE_HD T merged_maximum(T top) {
  if (top == static_cast<T>(kNoColumn)) return static_cast<T>(kMinusInfinity);
  return top <= static_cast<T>(kMinusInfinity) ? static_cast<T>(__builtin_nanf("")) : top;
}

// A maximum from base 2 to natural logarithms. One at its start stays there.
FNCE_HD double natural_maximum(float m) {
  return m <= kMinusInfinity ? static_cast<double>(kMinusInfinity) : static_cast<double>(m) * kLn2;
}

// The log-sum-exp of `count` scores in natural logarithms, from base 2; NaN where they all lay below the start of the
// maximum.
FNCE_HD LogSum<double> natural_log_sum(float m, float l, int64_t count) {
  if (count == 0) return LogSum<double>();
  const float checked = m <= kMinusInfinity ? __builtin_nanf("") : m;
  return LogSum<double>{static_cast<double>(checked) * kLn2, static_cast<double>(l)};
}

}  // namespace fnce
