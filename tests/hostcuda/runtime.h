// What a test does to the CUDA of include/cuda_runtime_api.h: choose its devices, make calls fail, see which were made.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace hostcuda {

struct DeviceProperties {
  int cc_major = 8, cc_minor = 0;
  int sm_count = 8;
  int shared_optin = 99 * 1024;  // dynamic shared memory that a block may have, at most
  int l2_bytes = 4 << 20;
  size_t memory_bytes = size_t{64} << 30;  // cudaMalloc fails beyond it
};

// FNCE_HOSTCUDA_DEVICES in the environment, 2 without. With 0 there is no device, as on a machine without a GPU.
// FNCE_HOSTCUDA_STATUS is what cudaGetDeviceCount then returns instead of cudaErrorNoDevice, FNCE_HOSTCUDA_DRIVER the
// version of the driver, such as 12020, and 0 where there is none.
void set_device_count(int count);
void set_device_properties(int device, const DeviceProperties& properties);
DeviceProperties device_properties(int device);

// The call of this name after `after` further ones returns `code` (a cudaError_t) and does nothing else. Any function
// of cuda_runtime_api.h except cudaGetLastError and cudaPeekAtLastError, or kLaunch for the launch of a kernel. Holds
// for all OS threads, once.
constexpr const char* kLaunch = "cudaLaunchKernelExC";
void fail_next_call(const std::string& name, int code, int after = 0);
void clear_failures();
// Planted failures that have not come to pass.
int pending_failures();

// Calls since the start or reset_calls(): of one name, and of all that allocate, free or wait for the device.
int64_t calls(const std::string& name);
int64_t blocking_calls();
void reset_calls();

// Device memory that has not been freed.
size_t allocated_bytes();
int64_t allocations();

}  // namespace hostcuda
