// The reason why there is no CUDA device, in words that say what to do.
#pragma once
#include <string>

namespace fnce::cuda {

// What is known where no device was found.
struct DriverState {
  int code;                     // of cudaGetDeviceCount
  std::string code_text;        // what the runtime library says of it
  int driver_version;           // newest CUDA that the driver serves, as 12020 for 12.2; 0: there is no driver
  int runtime_version;          // CUDA of the runtime library inside this one
  const char* visible_devices;  // CUDA_VISIBLE_DEVICES, or NULL
  enum Control { kAbsent, kDenied, kOpen } control;  // the driver's device file, for this process
};

// Pure: the sentence of a state.
std::string no_device_reason(const DriverState& state);

// The sentence of this process, after cudaGetDeviceCount has returned `code`.
std::string no_device_reason(int code);

}  // namespace fnce::cuda
