// A case against the oracle: the same inputs, lambda and permutation as the library drew them, and every output compared
// by the policy of support/tolerance.h.
#pragma once

#include "oracle/condition.h"
#include "oracle/oracle.h"
#include "support/problem.h"
#include "support/tolerance.h"

namespace support {

// The oracle's view of a case; lambda and the permutation come from the library's inspection calls where SAMPLED.
oracle::Inputs oracle_inputs(const Case& c);

struct Truth {
  explicit Truth(oracle::Inputs from);
  oracle::Inputs inputs;
  oracle::Result<double> exact;
  oracle::Result<float> naive;
  oracle::Condition condition;
};

enum class ScoreSet { kMixed, kUnmixed, kPlain };

// Loss, gradients, gradient of the temperature: those that `want` names.
Verdict compare_loss(const Truth& truth, const Outputs& actual, const Want& want);
// Statistics of equation (9); entropy and dq_norm with kMixed only.
Verdict compare_statistics(const Truth& truth, ScoreSet set, const Statistics& actual);
// Both, as the case asks for them.
Verdict compare_all(const Case& c, const Truth& truth, const Outputs& actual);

// The gradient of the truth stands out of its tolerance: the comparison of dq means something.
bool gradient_has_signal(const Truth& truth);

// A float64 number against the policy of a single value.
Verdict compare_number(const char* name, double truth, float naive, double condition, float actual,
                       double rounding = 0);

// Runs the case on the device and compares everything: the usual test in one line.
Verdict check_case(const Case& c);

}  // namespace support
