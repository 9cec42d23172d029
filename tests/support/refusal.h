// What a refused call must look like: the status code, and one sentence that names the field, its value and what is
// allowed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "flashnce/flashnce.h"
#include "support/problem.h"

namespace support {

// Each of `words` must occur in the sentence.
void check_refused(fnce_status actual, fnce_status expected, const std::vector<std::string>& words);

// A problem with one thing wrong: refused by fnce_plan_create (whose *plan stays as it was), by fnce_run_workspace and
// fnce_run (whose outputs stay as they were).
void check_problem_refused(const Case& good, const std::function<void(fnce_problem&)>& spoil, fnce_status expected,
                           const std::vector<std::string>& words);

// Arguments with one thing wrong: refused by fnce_loss, every output as it was. A check that reads data may use the
// workspace (`uses_workspace`), whose content is nobody's; any other must leave it alone too.
void check_args_refused(const Case& good, const std::function<void(fnce_args&)>& spoil, fnce_status expected,
                        const std::vector<std::string>& words, bool uses_workspace = false);

// A pointer one byte past where it was.
template <class T>
T* misaligned(T* pointer) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(pointer) + 1);
}

}  // namespace support
