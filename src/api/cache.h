// The plans behind fnce_run, kept for the life of the process and found by the bytes of the checked problem.
#pragma once
#include <flashnce/flashnce.h>

#include <memory>

#include "core/plan.h"

namespace fnce {

// Creates the plan at the first call with a problem. Throws StatusError. Thread-safe.
std::shared_ptr<const fnce_plan> cached_plan(const fnce_problem* problem);

}  // namespace fnce
