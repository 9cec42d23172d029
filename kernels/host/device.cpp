#include "kernels/host/device.h"

#include <cuda_runtime_api.h>

#include "core/status.h"
#include "kernels/contract/launch.h"
#include "kernels/host/no_device.h"

namespace fnce::cuda {
namespace {

int attribute(cudaDeviceAttr which, int32_t device) {
  int value = 0;
  check_runtime(cudaDeviceGetAttribute(&value, which, device), "an attribute of the device");
  return value;
}

struct Devices {
  int32_t count;
  int code;
};

// Asked once.
const Devices& devices() {
  static const Devices found = [] {
    int count = 0;
    const int code = cudaGetDeviceCount(&count);
    if (code == cudaSuccess) return Devices{count, code};
    cudaGetLastError();
    return Devices{0, code};
  }();
  return found;
}

}  // namespace

void check_runtime(int code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();
  const std::string reason = std::string(what) + ": " + cudaGetErrorString(static_cast<cudaError_t>(code));
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction ||
      code == cudaErrorUnsupportedPtxVersion || code == cudaErrorJitCompilerNotFound)
    throw StatusError(FNCE_UNSUPPORTED, reason + "; this library has code for the architectures " FNCE_CUDA_ARCHS);
  throw StatusError(FNCE_DEVICE_ERROR, reason);
}

void check_launch(int code, const char* kernel) {
  if (code != cudaSuccess) check_runtime(code, (std::string("kernel ") + kernel).c_str());
}

void copy_async(void* to, const void* from, uint64_t bytes, fnce_stream stream) {
  check_runtime(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "a copy in device memory");
}

void zero_async(void* memory, uint64_t bytes, fnce_stream stream) {
  check_runtime(cudaMemsetAsync(memory, 0, bytes, stream), "filling device memory");
}

int32_t device_count() { return devices().count; }

std::string why_no_device() { return devices().count > 0 ? "" : no_device_reason(devices().code); }

DeviceCaps caps_of(int32_t device) {
  DeviceCaps caps = {};
  caps.cc_major = attribute(cudaDevAttrComputeCapabilityMajor, device);
  caps.cc_minor = attribute(cudaDevAttrComputeCapabilityMinor, device);
  caps.sm_count = attribute(cudaDevAttrMultiProcessorCount, device);
  caps.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaDeviceProp properties = {};
  check_runtime(cudaGetDeviceProperties(&properties, device), "the device's properties");
  caps.name = properties.name;
  return caps;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version_text(version) : "unknown";
}

DeviceGuard::DeviceGuard(int32_t device) {
  int present = -1;
  check_runtime(cudaGetDevice(&present), "the present device");
  if (present == device) return;
  if (const int code = cudaSetDevice(device)) check_runtime(code, ("device " + to_text(int64_t{device})).c_str());
  previous_ = present;
}

DeviceGuard::~DeviceGuard() {
  if (previous_ >= 0) cudaSetDevice(previous_);
}

RelaxedCapture::RelaxedCapture() {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check_runtime(cudaThreadExchangeStreamCaptureMode(&mode), "the thread's capture mode");
  previous_ = mode;
}

RelaxedCapture::~RelaxedCapture() {
  auto mode = static_cast<cudaStreamCaptureMode>(previous_);
  cudaThreadExchangeStreamCaptureMode(&mode);
}

void check_stream(fnce_stream stream, int32_t device) {
// cudaStreamGetDevice exists since CUDA 12.8, and needs a driver as new.
#if CUDART_VERSION >= 12080
  if (stream == nullptr) return;  // the present device's own
  // Some drivers refuse it while the stream is captured, and the question then spoils the capture.
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_runtime(cudaStreamIsCapturing(stream, &capture), "stream");
  if (capture != cudaStreamCaptureStatusNone) return;
  int found = device;
  const cudaError_t code = cudaStreamGetDevice(stream, &found);
  if (code == cudaErrorCallRequiresNewerDriver) {
    cudaGetLastError();
    return;
  }
  check_runtime(code, "stream");
  if (found != device)
    throw StatusError(FNCE_DEVICE_MISMATCH, "stream belongs to device " + to_text(int64_t{found}) +
                                                "; allowed: streams of device " + to_text(int64_t{device}) +
                                                ", the plan's");
#else
  (void)stream;
  (void)device;
#endif
}

}  // namespace fnce::cuda
