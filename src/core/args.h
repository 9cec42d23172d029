// A fnce_args that has been checked against its problem for one kind of call.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>

#include "core/problem.h"

namespace fnce {

// sizeof(fnce_args) of the first version; pinned.
constexpr size_t kFirstArgsSize = 504;

fnce_args default_args();

// The kind of a call says which of its arguments it reads and writes.
enum class CallKind {
  kLoss,              // everything
  kPrep,              // features, positive mixing
  kPartial,           // negatives, negative mixing
  kColumns,           // features, positive mixing, batch columns: their gradient
  kColumnsOfAnchors,  // batch columns: their gradient, from given anchors
  kFinish,            // features, positive mixing, all outputs
  kScores,            // features and queue, no mixing, no outputs of fnce_args
  kDrawsPos,          // the numbers of the positives: the host inspects the draws of a seed
  kDrawsNeg,          // the numbers of the negatives
  kDrawsPermutation   // seed and offset alone
};

// A copy of the caller's fnce_args. Its constructor checks everything that may change per call and throws StatusError.
// If `host_memory` says that the device's memory can be read here, the constructor reads the numbers behind pointers,
// checks them and puts them in the place of the values; such pointers are NULL afterwards.
class Args {
 public:
  Args(const fnce_args* args, const Problem& problem, CallKind kind, bool host_memory);

  const fnce_args& raw() const { return raw_; }
  uint64_t seed() const { return raw_.seed; }
  uint64_t offset() const { return raw_.offset + raw_.offset_increment; }
  // The second GEMM is needed if anything of equation (8), or a statistic that follows from it, is asked for.
  bool needs_gradient() const;

 private:
  fnce_args raw_;
};

// Checks the smallest divisor of a normalisation, whose inverse must be finite.
void check_epsilon(float value, const char* field);

// Checks the buffers of statistics: alignment, and NULL where `loss_statistics` (entropy, dq_norm) do not exist.
void check_score_buffers(const fnce_score_buffers& buffers, bool loss_statistics, const char* name);
bool any_buffer(const fnce_score_buffers& buffers);

// Checks anchors given to (or asked of) a call with this problem.
void check_anchors(const fnce_anchors* anchors, const Problem& problem);

}  // namespace fnce
