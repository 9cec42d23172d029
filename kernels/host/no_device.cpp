#include "kernels/host/no_device.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdlib>

#include "kernels/host/device.h"

namespace fnce::cuda {
namespace {

// Every process that uses a GPU opens it.
constexpr const char* kControlFile = "/dev/nvidiactl";

DriverState::Control control_file() {
  if (access(kControlFile, F_OK) != 0) return DriverState::kAbsent;
  return access(kControlFile, R_OK | W_OK) == 0 ? DriverState::kOpen : DriverState::kDenied;
}

}  // namespace

std::string no_device_reason(const DriverState& state) {
  const std::string runtime = version_text(state.runtime_version);
  if (state.driver_version == 0)
    return "NVIDIA's driver is not installed (libcuda.so.1 was not found); this library needs one for CUDA " + runtime;
  if (state.code == cudaErrorInsufficientDriver)
    return "NVIDIA's driver is too old: it serves CUDA " + version_text(state.driver_version) +
           ", and this library was built with CUDA " + runtime + "; update the driver, or build with an older toolkit";
  if (state.control == DriverState::kDenied)
    return std::string("no permission for ") + kControlFile + ": this user may not open NVIDIA's device files";
  if (state.visible_devices != nullptr && state.code == cudaErrorNoDevice)
    return std::string("CUDA_VISIBLE_DEVICES is '") + state.visible_devices +
           "', which names no device of this machine";
  if (state.control == DriverState::kAbsent)
    return std::string("NVIDIA's driver is there, but not ") + kControlFile +
           ": the machine has no GPU, its kernel module is not loaded, or this container was started without one";
  return state.code_text;
}

std::string no_device_reason(int code) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  int runtime = 0;
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
  cudaGetLastError();
  return no_device_reason({code, cudaGetErrorString(static_cast<cudaError_t>(code)), driver, runtime,
                           std::getenv("CUDA_VISIBLE_DEVICES"), control_file()});
}

}  // namespace fnce::cuda
