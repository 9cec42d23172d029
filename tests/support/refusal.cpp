// Checks of refused calls.
#include "support/refusal.h"

#include "support/check.h"

namespace support {

void check_refused(fnce_status actual, fnce_status expected, const std::vector<std::string>& words) {
  const std::string sentence = fnce_last_error();
  INFO(fnce_status_string(actual) << ": " << (actual == FNCE_OK ? "" : sentence));
  CHECK(actual == expected);
  if (actual == FNCE_OK) return;
  CHECK_FALSE(sentence.empty());
  CHECK(sentence.find('\n') == std::string::npos);
  for (const std::string& word : words) {
    INFO("expected: " << word);
    CHECK(sentence.find(word) != std::string::npos);
  }
}

void check_problem_refused(const Case& good, const std::function<void(fnce_problem&)>& spoil, fnce_status expected,
                           const std::vector<std::string>& words) {
  fnce_problem problem = good.problem;
  spoil(problem);
  int anything = 0;
  auto* const before = reinterpret_cast<fnce_plan*>(&anything);
  fnce_plan* plan = before;
  const fnce_status status = fnce_plan_create(&problem, &plan);
  check_refused(status, expected, words);
  if (status == FNCE_OK) {
    fnce_plan_destroy(plan);
    return;
  }
  CHECK(plan == before);
  size_t bytes = 12345;
  check_refused(fnce_run_workspace(&problem, &bytes), expected, words);
  CHECK(bytes == 12345);
  const Call call(good);
  const Buffer<unsigned char> workspace(1 << 16);
  check_refused(fnce_run(&problem, &call.args, workspace.get(), workspace.bytes(), device().stream()), expected, words);
  CHECK(call.outputs_untouched());
  CHECK(workspace.untouched());
}

void check_args_refused(const Case& good, const std::function<void(fnce_args&)>& spoil, fnce_status expected,
                        const std::vector<std::string>& words, bool uses_workspace) {
  const Plan plan(good.problem);
  Call call(good);
  spoil(call.args);
  const Buffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
  check_refused(fnce_loss(plan.get(), &call.args, workspace.get(), workspace.bytes(), device().stream()), expected,
                words);
  CHECK(call.outputs_untouched());
  CHECK(workspace.guards_intact());
  if (!uses_workspace) CHECK(workspace.untouched());
}

}  // namespace support
