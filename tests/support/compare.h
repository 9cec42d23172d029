// A case against the oracle: the same inputs, lambda and permutation as the library drew them, and every output
// compared by the policy of support/tolerance.h.
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

// Loss, gradients, gradient of the temperature, log-sum-exps: those that `want` names.
Verdict compare_loss(const Truth& truth, const Outputs& actual, const Want& want);
// Statistics of equation (9); entropy and dq_norm with kMixed only.
Verdict compare_statistics(const Truth& truth, ScoreSet set, const Statistics& actual);
// The same of what a partial holds: the negatives alone. `actual` needs no pos, entropy or dq_norm.
Verdict compare_negatives(const Truth& truth, ScoreSet set, const Statistics& actual);
// All that the case asks for.
Verdict compare_all(const Case& c, const Truth& truth, const Outputs& actual);
// The same against another result from inputs that have no truth; `sizes` is the truth of inputs like them.
Verdict compare_pair(const Case& c, const Truth& sizes, const Outputs& actual, const Outputs& other);

// What fnce_prep writes: equation (6), [N,D], and the positives of a set, [N].
Verdict compare_anchors(const Truth& truth, const std::vector<float>& actual);
Verdict compare_positives(const Truth& truth, ScoreSet set, const std::vector<float>& actual);
// The softmax of a partial, whatever maximum it refers to: m + log(l), [N], and O / l, [N,D].
Verdict compare_softmax(const Truth& truth, const std::vector<float>& log_sum_exp, const std::vector<float>& mean);

// The gradient of the truth stands out of its tolerance: the comparison of dq means something.
bool gradient_has_signal(const Truth& truth);

// Runs the case on the device and compares everything: the usual test in one line.
Verdict check_case(const Case& c);

}  // namespace support
