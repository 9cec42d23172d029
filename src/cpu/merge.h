// Merging partials of several shards on the CPU: fnce_merge.
#pragma once
#include <cstdint>

#include "core/problem.h"

namespace fnce::cpu {

// In the order given; out may be partials[0].
void merge_partials(const Problem& problem, const void* const* partials, int32_t count, int threads, void* out);

// Rows first_row .. of a partial of `from` into one of `to`: fnce_partial_rows.
void take_rows(const Problem& from, const void* partial, int64_t first_row, const Problem& to, void* out);

}  // namespace fnce::cpu
