// Errors, devices, and what tests plant.
#include <cstdio>
#include <cstdlib>

#include "hostcuda/runtime/cuda_state.h"

namespace hostcuda {
namespace {

constexpr int kDefaultDevices = 2;

struct ErrorText {
  cudaError_t code;
  const char *name, *text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorCallRequiresNewerDriver, "cudaErrorCallRequiresNewerDriver",
     "API call is not supported in the installed CUDA driver"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorJitCompilerNotFound, "cudaErrorJitCompilerNotFound", "PTX JIT compiler library not found"},
    {cudaErrorUnsupportedPtxVersion, "cudaErrorUnsupportedPtxVersion",
     "the provided PTX was compiled with an unsupported toolchain."},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorText* text_of(cudaError_t code) {
  for (const ErrorText& error : kErrors)
    if (error.code == code) return &error;
  return nullptr;
}

// All that allocate, free or wait for the device.
constexpr const char* kBlocking[] = {"cudaMalloc",       "cudaMallocHost",        "cudaMallocManaged",    "cudaFree",
                                     "cudaFreeHost",     "cudaDeviceSynchronize", "cudaMemcpy",           "cudaMemset",
                                     "cudaStreamCreate", "cudaStreamDestroy",     "cudaStreamSynchronize"};

int attribute_of(const DeviceProperties& properties, cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX: return 1024;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 48 * 1024;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMultiProcessorCount: return properties.sm_count;
    case cudaDevAttrL2CacheSize: return properties.l2_bytes;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 1536;
    case cudaDevAttrUnifiedAddressing: return 1;
    case cudaDevAttrComputeCapabilityMajor: return properties.cc_major;
    case cudaDevAttrComputeCapabilityMinor: return properties.cc_minor;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return properties.shared_optin + 1024;
    case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
    case cudaDevAttrPageableMemoryAccess: return 0;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return properties.shared_optin;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return 16;
    case cudaDevAttrReservedSharedMemoryPerBlock: return 1024;
  }
  return -1;
}

using Lock = std::lock_guard<std::mutex>;

}  // namespace

CudaState::CudaState() {
  const char* count = std::getenv("FNCE_HOSTCUDA_DEVICES");
  devices.resize(count ? static_cast<size_t>(std::atoi(count)) : kDefaultDevices);
}

const DeviceProperties* CudaState::here() const {
  const auto device = static_cast<size_t>(current_device());
  return device < devices.size() ? &devices[device] : nullptr;
}

// Never destroyed: the library may call CUDA until the very end of the program.
CudaState& cuda_state() {
  static CudaState* const state = new CudaState;
  return *state;
}
// Made before there are threads: ThreadSanitizer does not see what guards the first call.
[[maybe_unused]] static const CudaState& made_early = cuda_state();

int& current_device() {
  static thread_local int device = 0;
  return device;
}

cudaError_t& last_error() {
  static thread_local cudaError_t error = cudaSuccess;
  return error;
}

cudaError_t enter(const char* name) {
  CudaState& state = cuda_state();
  const Lock lock(state.mutex);
  ++state.calls[name];
  for (auto failure = state.failures.begin(); failure != state.failures.end(); ++failure) {
    if (failure->name != name) continue;
    if (failure->after-- > 0) return cudaSuccess;
    const cudaError_t code = failure->code;
    state.failures.erase(failure);
    return code;
  }
  return cudaSuccess;
}

void set_device_count(int count) {
  const Lock lock(cuda_state().mutex);
  cuda_state().devices.resize(static_cast<size_t>(count));
}

void set_device_properties(int device, const DeviceProperties& properties) {
  const Lock lock(cuda_state().mutex);
  cuda_state().devices.at(static_cast<size_t>(device)) = properties;
}

DeviceProperties device_properties(int device) {
  const Lock lock(cuda_state().mutex);
  return cuda_state().devices.at(static_cast<size_t>(device));
}

void fail_next_call(const std::string& name, int code, int after) {
  const Lock lock(cuda_state().mutex);
  cuda_state().failures.push_back({name, static_cast<cudaError_t>(code), after});
}

void clear_failures() {
  const Lock lock(cuda_state().mutex);
  cuda_state().failures.clear();
}

int pending_failures() {
  const Lock lock(cuda_state().mutex);
  return static_cast<int>(cuda_state().failures.size());
}

int64_t calls(const std::string& name) {
  const Lock lock(cuda_state().mutex);
  const auto found = cuda_state().calls.find(name);
  return found == cuda_state().calls.end() ? 0 : found->second;
}

int64_t blocking_calls() {
  int64_t sum = 0;
  for (const char* name : kBlocking) sum += calls(name);
  return sum;
}

void reset_calls() {
  const Lock lock(cuda_state().mutex);
  cuda_state().calls.clear();
}

}  // namespace hostcuda

using hostcuda::call;
using hostcuda::cuda_state;

cudaError_t cudaGetLastError() {
  const cudaError_t error = hostcuda::last_error();
  hostcuda::last_error() = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() { return hostcuda::last_error(); }

const char* cudaGetErrorName(cudaError_t code) {
  const hostcuda::ErrorText* text = hostcuda::text_of(code);
  return text ? text->name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t code) {
  const hostcuda::ErrorText* text = hostcuda::text_of(code);
  return text ? text->text : "unrecognized error code";
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  return call("cudaRuntimeGetVersion", [=] {
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  return call("cudaDriverGetVersion", [=] {
    const char* const named = std::getenv("FNCE_HOSTCUDA_DRIVER");
    *version = named ? std::atoi(named) : CUDART_VERSION;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceCount(int* count) {
  return call("cudaGetDeviceCount", [=] {
    const std::lock_guard<std::mutex> lock(cuda_state().mutex);
    *count = static_cast<int>(cuda_state().devices.size());
    if (const char* code = std::getenv("FNCE_HOSTCUDA_STATUS")) return static_cast<cudaError_t>(std::atoi(code));
    return *count ? cudaSuccess : cudaErrorNoDevice;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return call("cudaGetDevice", [=] {
    const std::lock_guard<std::mutex> lock(cuda_state().mutex);
    if (!cuda_state().here()) return cudaErrorNoDevice;
    *device = hostcuda::current_device();
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return call("cudaSetDevice", [=] {
    const std::lock_guard<std::mutex> lock(cuda_state().mutex);
    if (cuda_state().devices.empty()) return cudaErrorNoDevice;
    if (device < 0 || device >= static_cast<int>(cuda_state().devices.size())) return cudaErrorInvalidDevice;
    hostcuda::current_device() = device;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call("cudaDeviceGetAttribute", [=] {
    const std::lock_guard<std::mutex> lock(cuda_state().mutex);
    if (device < 0 || device >= static_cast<int>(cuda_state().devices.size())) return cudaErrorInvalidDevice;
    const int found = hostcuda::attribute_of(cuda_state().devices[static_cast<size_t>(device)], attribute);
    if (found < 0) return cudaErrorInvalidValue;
    *value = found;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call("cudaGetDeviceProperties", [=] {
    const std::lock_guard<std::mutex> lock(cuda_state().mutex);
    if (device < 0 || device >= static_cast<int>(cuda_state().devices.size())) return cudaErrorInvalidDevice;
    std::snprintf(properties->name, sizeof properties->name, "invented device %d", device);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() { return call("cudaDeviceSynchronize", hostcuda::refuse_in_capture); }
