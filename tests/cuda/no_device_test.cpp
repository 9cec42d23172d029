// Why there is no GPU, in words, for every state that a machine can be in.
#include "kernels/host/no_device.h"

#include <cuda_runtime_api.h>

#include <string>

#include "support/catch.h"

namespace {

using fnce::cuda::DriverState;
using fnce::cuda::no_device_reason;

// A driver for CUDA 13.1 under a library of 13.0, and nothing wrong but the code.
DriverState state(int code) { return {code, "what the runtime says", 13010, 13000, nullptr, DriverState::kOpen}; }

bool holds(const std::string& sentence, const std::string& words) { return sentence.find(words) != std::string::npos; }

}  // namespace

TEST_CASE("no device: a driver that is not there, and one that is too old") {
  DriverState absent = state(cudaErrorInsufficientDriver);
  absent.driver_version = 0;
  CHECK(holds(no_device_reason(absent), "driver is not installed"));
  CHECK(holds(no_device_reason(absent), "needs one for CUDA 13.0"));
  DriverState old = state(cudaErrorInsufficientDriver);
  old.driver_version = 12020;
  CHECK(holds(no_device_reason(old), "too old: it serves CUDA 12.2, and this library was built with CUDA 13.0"));
}

TEST_CASE("no device: permission, what is hidden, what is missing") {
  DriverState denied = state(cudaErrorNoDevice);
  denied.control = DriverState::kDenied;
  denied.visible_devices = "0";
  CHECK(holds(no_device_reason(denied), "no permission for /dev/nvidiactl"));
  DriverState hidden = state(cudaErrorNoDevice);
  hidden.visible_devices = "";
  hidden.control = DriverState::kAbsent;
  CHECK(holds(no_device_reason(hidden), "CUDA_VISIBLE_DEVICES is '', which names no device"));
  DriverState missing = state(cudaErrorNoDevice);
  missing.control = DriverState::kAbsent;
  CHECK(holds(no_device_reason(missing), "the machine has no GPU"));
}

TEST_CASE("no device: the runtime's own words where nothing is known") {
  CHECK(no_device_reason(state(cudaErrorUnknown)) == "what the runtime says");
  CHECK(no_device_reason(state(cudaErrorNoDevice)) == "what the runtime says");
}
