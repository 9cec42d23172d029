// Conditions: by how much a relative error of one unit in every product and sum of equations (1)-(9) and (13)-(16) can
// move each result. They are first-order bounds made of absolute values, per row and over the columns that count for
// it; tests/support/tolerance.h multiplies them by the epsilon of float32. Roundings to 16 bits inside the computation
// have bounds of their own, in the unit of the result.
#pragma once

#include <vector>

#include "oracle/oracle.h"

namespace oracle {

struct ScoreCondition {
  std::vector<double> pos;            // [N] of q^.k^
  std::vector<double> largest, mean;  // [N] of the negatives' scores: the largest and the average over columns
  std::vector<double> log_mean_exp;   // [N]
  // How far 16-bit roundings move a result, not times epsilon: a single score, the mean, the log-mean-exp, the ranks'
  // positive.
  std::vector<double> score_rounding, mean_rounding, log_mean_exp_rounding, rank_rounding;  // [N]
};

// Errors by an engine of 16-bit products, in the unit of the result.
struct EngineRounding {
  std::vector<double> loss, dtemperature_rows, entropy;  // [N]
  std::vector<double> dq, dk;                            // [N,D]
  std::vector<double> normalizer;                        // [N]
  std::vector<double> dx_c;                              // [C,D]
};

// What fnce_prep and fnce_partial hand on: the anchor, and the softmax over the negatives alone.
struct StepCondition {
  std::vector<double> anchor;       // [N,D] equation (6)
  std::vector<double> log_sum_exp;  // [N]
  std::vector<double> mean;         // [N,D] partial_o / partial_l
};

struct Condition {
  std::vector<double> loss;               // [N] of loss_rows
  std::vector<double> dq, dk;             // [N,D]
  std::vector<double> dtemperature_rows;  // [N]
  std::vector<double> entropy;            // [N]
  std::vector<double> normalizer;         // [N] L of (16)
  std::vector<double> dx_c;               // [C,D]
  ScoreCondition mixed, unmixed, plain;
  StepCondition steps;
  EngineRounding rounding;
};

Condition condition_of(const Inputs& inputs, const Result<double>& result);

}  // namespace oracle
