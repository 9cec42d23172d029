// Devices as the CUDA runtime library reports them, and its status codes as ours.
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>
#include <string>

#include "kernels/contract/caps.h"

namespace fnce::cuda {

// Throws StatusError unless `code` is cudaSuccess: FNCE_DEVICE_ERROR, or FNCE_UNSUPPORTED where the device has no code
// here. `what` starts the sentence: "kernel fnce_finish". Clears the runtime's own last error, which is not the
// caller's.
void check_runtime(int code, const char* what);

// Work on a stream of the present device.
void copy_async(void* to, const void* from, uint64_t bytes, fnce_stream stream);
void zero_async(void* memory, uint64_t bytes, fnce_stream stream);

// Devices that the driver shows, asked once; 0 where there is no driver, or none that is new enough.
int32_t device_count();
// The reason why there are none, in words; "" where there are some.
std::string why_no_device();
DeviceCaps caps_of(int32_t device);
// A version of CUDA as its runtime library writes it, 13000, in words: "13.0".
std::string version_text(int version);
// Version of the runtime library inside this one, "13.0".
std::string runtime_version();

// Makes `device` the thread's device for a call and gives the caller's back.
class DeviceGuard {
 public:
  explicit DeviceGuard(int32_t device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = -1;  // -1: nothing to give back
};

// Loading a kernel counts as unsafe while any stream of the process is captured, in the usual capture modes, and would
// spoil the capture; in this object's life it does not. What is loaded does not belong to the captured work.
class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int previous_;
};

// FNCE_DEVICE_MISMATCH if the stream belongs to another device than the present one, `device`. A stream that is
// captured is taken as it is, and so is any with a driver that cannot tell (older than 12.8).
void check_stream(fnce_stream stream, int32_t device);

}  // namespace fnce::cuda
