// THE tolerance policy: how far a result may lie from the float64 oracle. It stands here and nowhere else.
//
//   err <= (2 * naive + kRounding) * unit + output        unit = 2^-23 * condition + engine
//
// condition  the first-order amplification of relative rounding errors, computed by oracle::condition_of per row
//            (loss, statistics) or per element (gradients; taken as row norm and as row maximum). For a row's loss:
//              w * (1 + log(1+C) + |LSE| + |q^||k^|/tau + sum_j softmax_j |a||z_j|/tau) + loss
//            because every logit carries an error of a few eps*|a||z|/tau, the logarithm one of eps*|LSE|, and the loss
//            moves with w = 1 - p+ times both; a small loss so keeps its digits. Gradients are the sums of their
//            terms' magnitudes, each times the relative error of its weight: (1 - w) of the bracket for w, and the
//            column's own and the average score for a column's share of the softmax.
// engine     what rounding to 16 bits inside the computation adds; 0 with float32 products. The oracle rounds the
//            anchor, mixed rows and a queue that is multiplied in fewer bits than it has (oracle/operands.h), so only
//            the rounding of the weights, undecided neighbours and the ends of operands split in two are left:
//            oracle/rounding.h. The loss, whose sum has unrounded weights, keeps its float32 bound, except that split
//            operands add the errors of their scores.
// output     half a unit in the last place of dq and dk where they are written in 16 bits: at the truth enlarged by
//            the rest of the bound, and never below half the spacing of the type's denormals. 0 for float32.
// naive      the error of the naive float32 twin of the oracle in units, the largest over the rows of the call: what
//            plain float32 code (with the engine's roundings) reaches on this very input. Never counted above
//            kNaiveCap, so that an input which breaks the naive code does not excuse the library.
// kRounding  the room for other orders of summation, another exp and another rounding of 1/tau, in the same units.
//
// Values that overflow the type they are written in must not be finite, and a result is not finite exactly where the
// oracle's is not; a truth whose bound reaches across the overflow may fall on either side.
#pragma once

#include <string>
#include <vector>

#include "oracle/condition.h"
#include "oracle/oracle.h"

namespace support {

inline constexpr double kFloatEpsilon = 1.1920928955078125e-07;  // 2^-23
inline constexpr double kRounding = 2.0;
inline constexpr double kNaiveCap = 4.0;

// The outcome of a comparison: what was out of bounds, and the largest error relative to its bound.
struct Verdict {
  bool ok = true;
  double worst = 0;
  std::string why;

  void merge(const Verdict& other);
};

// What a comparison of one kind of result needs. All arrays have `rows` rows of `width` entries.
struct Expectation {
  std::string name;
  int64_t rows = 0, width = 1;
  const std::vector<double>* truth = nullptr;
  const std::vector<float>* naive = nullptr;  // the twin's result
  const std::vector<double>* condition = nullptr;
  const std::vector<double>* rounding = nullptr;  // the engine's part of the unit, or null
  oracle::Element type = oracle::Element::kFloat32;
};

// Per row: the norm of the difference and its largest element, both by the policy. Width 1 compares numbers.
Verdict compare_rows(const Expectation& expected, const std::vector<float>& actual);

// Two results without a truth, such as those of two backends from the same wrong numbers. Either may lie as far from a
// truth as the policy allows, so they lie within twice the bound of each other, and they are finite together.
// `expected` gives the sizes that the bound is made of.
Verdict compare_pair(const Expectation& expected, const std::vector<float>& actual, const std::vector<float>& other);

// The bound of one number of row `row`, in the truth's unit, for counts near a threshold.
double score_margin(const oracle::ScoreCondition& condition, int64_t row);

// True if the truth exceeds the bound of the policy by far in some row: a comparison that could fail.
bool has_signal(const Expectation& expected);

}  // namespace support
