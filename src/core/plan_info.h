// What a plan tells of itself, fnce_plan_info. Backends fill in the numbers; the words for them are all here.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/problem.h"

namespace fnce {

// sizeof(fnce_plan_info) of the first version; pinned.
constexpr size_t kFirstPlanInfoSize = 256;

// The part that follows from the problem alone. `row_mixing` is the backend's FNCE_MIXING_* where scores cannot be
// mixed.
fnce_plan_info problem_info(const Problem& problem, int32_t row_mixing, uint64_t workspace_bytes);

// FNCE_CPU_ISA_* of the name that FNCE_CPU_ISA has for it; FNCE_CPU_ISA_NONE if it has none.
int32_t cpu_isa_of(const char* name);

// What FNCE_BACKEND calls a family of CUDA kernels, FNCE_FAMILY_*.
const char* family_name(int32_t code);

// Why better_family does not serve, or why this one does.
std::string family_reason_in_words(const fnce_plan_info& info);

// What fnce_plan_describe says.
std::string describe(const fnce_plan_info& info);

}  // namespace fnce
