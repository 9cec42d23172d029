// The process's default number of CPU threads: at first the number of CPUs that this process may run on.
#pragma once
#include <cstdint>

namespace fnce {

int32_t default_threads();
void set_default_threads(int32_t threads);

}  // namespace fnce
