// A fnce_pairs that has been checked against its problem, for one of its two calls.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>

#include "core/problem.h"

namespace fnce {

// sizeof(fnce_pairs) of the first version; pinned.
constexpr size_t kFirstPairsSize = 136;

fnce_pairs default_pairs();

// A checked copy, in which the temperature has been read where the host can. Throws StatusError.
fnce_pairs check_pairs(const fnce_pairs* pairs, const Problem& problem, bool backward, bool host_memory);

}  // namespace fnce
