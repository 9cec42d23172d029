#include "core/plan.h"

#include <algorithm>
#include <utility>

#include "core/plan_info.h"
#include "core/status.h"

fnce_plan::fnce_plan(const fnce::Problem& checked_problem, const fnce::Backend& chosen_backend,
                     std::unique_ptr<fnce::BackendPlan> plan_of_backend)
    : problem(checked_problem),
      backend(chosen_backend),
      steps(std::move(plan_of_backend)),
      info(steps->info()),
      description(fnce::describe(info)) {}

// The build says why it has no CUDA backend.
#ifndef FNCE_WITHOUT_CUDA
#define FNCE_WITHOUT_CUDA ""
#endif

namespace fnce {
namespace {

std::string with_reason(const std::string& reason) { return reason.empty() ? "" : ": " + reason; }

}  // namespace

std::unique_ptr<fnce_plan> make_plan(const Problem& problem, std::span<const Backend* const> backends) {
  const fnce_problem& p = problem.raw();
  require_device(p.device, p.device_index, "problem.", backends);
  for (const Backend* backend : backends) {
    if (backend->device() != p.device || p.device_index >= backend->device_count()) continue;
    if (auto steps = backend->plan(problem)) return std::make_unique<fnce_plan>(problem, *backend, std::move(steps));
  }
  throw StatusError(FNCE_UNSUPPORTED, "no backend of this library accepts the problem");
}

const Backend& require_device(int32_t device, int32_t device_index, const char* prefix,
                              std::span<const Backend* const> backends) {
  const std::string name = device == FNCE_CUDA ? "CUDA" : "CPU";
  int32_t count = -1;
  std::string reason;
  for (const Backend* backend : backends) {
    if (backend->device() != device) continue;
    count = std::max(count, backend->device_count());
    if (backend->device_count() == 0) reason = backend->why_no_device();
    if (device_index < backend->device_count()) return *backend;
  }
  if (count < 0)
    throw StatusError(FNCE_NO_DEVICE, std::string(prefix) + "device is " + to_text(int64_t{device}) + " (" + name +
                                          "), which this library was built without" +
                                          with_reason(device == FNCE_CUDA ? FNCE_WITHOUT_CUDA : "") +
                                          "; allowed: FNCE_CPU (1)");
  throw StatusError(FNCE_NO_DEVICE, std::string(prefix) + "device_index is " + to_text(int64_t{device_index}) +
                                        "; this machine has " + to_text(int64_t{count}) + " usable " + name +
                                        " devices" + with_reason(count == 0 ? reason : ""));
}

}  // namespace fnce
