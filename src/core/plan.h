// A plan: a checked problem and the backend's plan for it.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "core/backend.h"
#include "core/problem.h"

struct fnce_plan {
  fnce_plan(const fnce::Problem& checked_problem, const fnce::Backend& chosen_backend,
            std::unique_ptr<fnce::BackendPlan> plan_of_backend);

  fnce::Problem problem;
  const fnce::Backend& backend;
  std::unique_ptr<fnce::BackendPlan> steps;
  fnce_plan_info info;
  std::string description;  // the info in words
};

namespace fnce {

// The first backend of the list, best first, that has the device and accepts the problem. Throws StatusError.
std::unique_ptr<fnce_plan> make_plan(const Problem& problem, std::span<const Backend* const> backends);

// The first backend that has this device. Throws FNCE_NO_DEVICE with the reason.
// `prefix` stands before the name of the field in the sentence, such as "problem.".
const Backend& require_device(int32_t device, int32_t device_index, const char* prefix,
                              std::span<const Backend* const> backends);

}  // namespace fnce
