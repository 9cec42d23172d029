// Merging partials of several shards on the CPU: fnce_merge.
#pragma once
#include <cstdint>

#include "core/problem.h"

namespace fnce::cpu {

// In the order given; out may be partials[0].
void merge_partials(const Problem& problem, const void* const* partials, int32_t count, void* out);

}  // namespace fnce::cpu
