// A fnce_args that has been checked against its problem for one kind of call.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>

#include "core/problem.h"

namespace fnce {

// sizeof(fnce_args) of the first version; pinned.
constexpr size_t kFirstArgsSize = 504;

fnce_args default_args();

// What a call reads and writes of its arguments.
enum class CallKind {
  kLoss,      // everything
  kPrep,      // features, positive mixing
  kPartial,   // negatives, negative mixing
  kFinish,    // features, positive mixing, all outputs
  kScores,    // features and queue, no mixing, no outputs of fnce_args
  kDrawsPos,  // the host inspects what a seed draws: the numbers of one side, or of none
  kDrawsNeg,
  kDrawsPermutation
};

// A copy of the caller's fnce_args. Throws StatusError: the argument checks of everything that may change per call. Numbers
// behind pointers are read, checked and put in the place of the values when `host_memory` says that the device's memory can be
// read here; afterwards such pointers are NULL.
class Args {
 public:
  Args(const fnce_args* args, const Problem& problem, CallKind kind, bool host_memory);

  const fnce_args& raw() const { return raw_; }
  uint64_t seed() const { return raw_.seed; }
  uint64_t offset() const { return raw_.offset + raw_.offset_increment; }
  // Anything of equation (8), or a statistic that follows from it, is asked for: the second GEMM is needed.
  bool needs_gradient() const;

 private:
  fnce_args raw_;
};

// Smallest norm divided by: its inverse must be finite.
void check_epsilon(float value, const char* field);

// Checks the buffers of statistics: alignment, and NULL where `loss_statistics` (entropy, dq_norm) do not exist.
void check_score_buffers(const fnce_score_buffers& buffers, bool loss_statistics, const char* name);
bool any_buffer(const fnce_score_buffers& buffers);

// Checks anchors given to (or asked of) a call with this problem.
void check_anchors(const fnce_anchors* anchors, const Problem& problem);

}  // namespace fnce
