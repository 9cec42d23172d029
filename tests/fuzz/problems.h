// fnce_problems out of a fuzzer's bytes, and the header's rules about them, written down a second time.
#pragma once

#include "flashnce/flashnce.h"
#include "fuzz/input.h"

namespace fuzz {

enum class Verdict {
  kAccepted,  // the header allows it: the library must
  kRefused,   // the header does not: the library must not
  kEither     // the header leaves it open
};

// Most are valid; some have a few fields of arbitrary value, some have sizes near the limits.
fnce_problem read_problem(Input& input);
// A number for a field of a problem, valid or not.
int64_t read_odd_number(Input& input);
// An element type.
int32_t read_type(Input& input);

Verdict judge(const fnce_problem& problem);

// Small enough that its arrays are allocated and its calls are run. Only for valid problems.
bool runs_quickly(const fnce_problem& problem);

size_t element_size(int32_t type);

}  // namespace fuzz
