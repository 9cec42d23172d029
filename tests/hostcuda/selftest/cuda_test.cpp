// The invented CUDA runtime: devices, memory, streams, capture, planted failures, counted calls.
#include <cuda_runtime_api.h>

#include <cstring>
#include <string>
#include <vector>

#include "hostcuda/device.h"
#include "hostcuda/launch.h"
#include "hostcuda/runtime.h"
#include "support/catch.h"

namespace {

int launch(
    cudaStream_t stream, const std::function<void()>& body = [] {}) {
  return hostcuda::launch({1, 1, 1}, 32, 0, "test", stream, body);
}

cudaMemoryType type_of(const void* pointer, int* device = nullptr) {
  cudaPointerAttributes attributes = {};
  REQUIRE(cudaPointerGetAttributes(&attributes, pointer) == cudaSuccess);
  if (device) *device = attributes.device;
  return attributes.type;
}

int attribute(cudaDeviceAttr which, int device) {
  int value = -1;
  REQUIRE(cudaDeviceGetAttribute(&value, which, device) == cudaSuccess);
  return value;
}

}  // namespace

TEST_CASE("hostcuda: invented devices") {
  int count = 0, device = -1;
  CHECK(cudaGetDeviceCount(&count) == cudaSuccess);
  CHECK(count == 2);
  CHECK(cudaSetDevice(1) == cudaSuccess);
  CHECK(cudaGetDevice(&device) == cudaSuccess);
  CHECK(device == 1);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK(cudaSetDevice(-1) == cudaErrorInvalidDevice);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  const hostcuda::DeviceProperties before = hostcuda::device_properties(1);
  hostcuda::set_device_properties(1, {.cc_major = 12, .cc_minor = 1, .sm_count = 170, .shared_optin = 64 * 1024});
  CHECK(attribute(cudaDevAttrComputeCapabilityMajor, 1) == 12);
  CHECK(attribute(cudaDevAttrComputeCapabilityMinor, 1) == 1);
  CHECK(attribute(cudaDevAttrMultiProcessorCount, 1) == 170);
  CHECK(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, 1) == 64 * 1024);
  CHECK(attribute(cudaDevAttrComputeCapabilityMajor, 0) == 8);
  CHECK(attribute(cudaDevAttrWarpSize, 0) == 32);
  hostcuda::set_device_properties(1, before);
  hostcuda::set_device_count(0);
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  CHECK(count == 0);
  CHECK(cudaSetDevice(0) == cudaErrorNoDevice);
  CHECK(launch(nullptr) == cudaErrorNoDevice);
  hostcuda::set_device_count(2);
  CHECK(std::string(cudaGetErrorName(cudaErrorNoDevice)) == "cudaErrorNoDevice");
  CHECK(std::string(cudaGetErrorString(cudaErrorNoDevice)) == "no CUDA-capable device is detected");
  cudaGetLastError();
}

TEST_CASE("hostcuda: memory knows its device, copies know memory") {
  int device = -1;
  void *first = nullptr, *second = nullptr, *pinned = nullptr;
  REQUIRE(cudaMalloc(&first, 100) == cudaSuccess);
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  REQUIRE(cudaMalloc(&second, 100) == cudaSuccess);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  REQUIRE(cudaMallocHost(&pinned, 100) == cudaSuccess);
  CHECK(type_of(first, &device) == cudaMemoryTypeDevice);
  CHECK(device == 0);
  CHECK(type_of(static_cast<char*>(second) + 99, &device) == cudaMemoryTypeDevice);
  CHECK(device == 1);
  CHECK(type_of(pinned) == cudaMemoryTypeHost);
  CHECK(type_of(&device, &device) == cudaMemoryTypeUnregistered);
  CHECK(device == cudaInvalidDeviceId);
  CHECK(type_of(nullptr) == cudaMemoryTypeUnregistered);
  CHECK(hostcuda::allocations() == 3);
  CHECK(hostcuda::allocated_bytes() == 200);

  std::vector<unsigned char> host(100, 7), back(100, 0);
  CHECK(cudaMemcpy(first, host.data(), 100, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(cudaMemcpyAsync(second, first, 100, cudaMemcpyDeviceToDevice, nullptr) == cudaSuccess);
  CHECK(cudaMemsetAsync(second, 9, 50, nullptr) == cudaSuccess);
  CHECK(cudaMemcpyAsync(back.data(), second, 100, cudaMemcpyDefault, nullptr) == cudaSuccess);
  CHECK(back[49] == 9);
  CHECK(back[50] == 7);
  CHECK(cudaMemcpyAsync(host.data(), first, 100, cudaMemcpyHostToDevice, nullptr) == cudaErrorInvalidValue);
  CHECK(cudaMemcpyAsync(back.data(), host.data(), 100, cudaMemcpyDeviceToHost, nullptr) == cudaErrorInvalidValue);
  CHECK(cudaMemcpyAsync(first, host.data(), 101, cudaMemcpyHostToDevice, nullptr) == cudaErrorInvalidValue);
  CHECK(cudaMemsetAsync(host.data(), 0, 100, nullptr) == cudaErrorInvalidValue);
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaPeekAtLastError() == cudaSuccess);

  CHECK(cudaFree(static_cast<char*>(first) + 1) == cudaErrorInvalidValue);
  CHECK(cudaFree(first) == cudaSuccess);
  CHECK(cudaFree(first) == cudaErrorInvalidValue);
  CHECK(cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaFree(second) == cudaSuccess);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
  CHECK(hostcuda::allocations() == 0);
  cudaGetLastError();
}

TEST_CASE("hostcuda: device memory ends") {
  const hostcuda::DeviceProperties before = hostcuda::device_properties(0);
  hostcuda::set_device_properties(0, {.memory_bytes = 1000});
  void *some = nullptr, *more = nullptr;
  CHECK(cudaMalloc(&some, 600) == cudaSuccess);
  CHECK(cudaMalloc(&more, 600) == cudaErrorMemoryAllocation);
  CHECK(more == nullptr);
  size_t free = 0, total = 0;
  CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess);
  CHECK(free == 400);
  CHECK(total == 1000);
  CHECK(cudaFree(some) == cudaSuccess);
  hostcuda::set_device_properties(0, before);
  cudaGetLastError();
}

TEST_CASE("hostcuda: a kernel is launched on a stream of the current device") {
  cudaStream_t stream = nullptr;
  int device = -1;
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  CHECK(launch(stream) == cudaSuccess);
  CHECK(cudaStreamGetDevice(nullptr, &device) == cudaSuccess);
  CHECK(device == 1);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  CHECK(cudaStreamGetDevice(stream, &device) == cudaSuccess);
  CHECK(device == 1);
  CHECK(launch(stream) == cudaErrorInvalidResourceHandle);
  CHECK(launch(nullptr) == cudaSuccess);
  CHECK(launch(cudaStreamPerThread) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
  CHECK(launch(stream) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
}

TEST_CASE("hostcuda: planted failures come once, in their turn") {
  hostcuda::fail_next_call("cudaSetDevice", cudaErrorUnknown, 1);
  hostcuda::fail_next_call(hostcuda::kLaunch, cudaErrorLaunchOutOfResources);
  CHECK(hostcuda::pending_failures() == 2);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK(cudaSetDevice(0) == cudaErrorUnknown);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  bool ran = false;
  CHECK(launch(nullptr, [&] { ran = true; }) == cudaErrorLaunchOutOfResources);
  CHECK(!ran);
  CHECK(launch(nullptr) == cudaSuccess);
  CHECK(hostcuda::pending_failures() == 0);
  hostcuda::fail_next_call("cudaMalloc", cudaErrorMemoryAllocation);
  hostcuda::clear_failures();
  CHECK(hostcuda::pending_failures() == 0);
  cudaGetLastError();
}

TEST_CASE("hostcuda: calls are counted, those that wait or allocate apart") {
  hostcuda::reset_calls();
  void* memory = nullptr;
  CHECK(launch(nullptr) == cudaSuccess);
  CHECK(launch(nullptr) == cudaSuccess);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK(hostcuda::blocking_calls() == 0);
  CHECK(hostcuda::calls(hostcuda::kLaunch) == 2);
  CHECK(hostcuda::calls("cudaMalloc") == 0);
  CHECK(cudaMalloc(&memory, 10) == cudaSuccess);
  CHECK(cudaMemsetAsync(memory, 0, 10, nullptr) == cudaSuccess);
  CHECK(cudaStreamSynchronize(nullptr) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(hostcuda::blocking_calls() == 4);
  hostcuda::reset_calls();
  CHECK(hostcuda::calls("cudaMalloc") == 0);
}

TEST_CASE("hostcuda: a captured stream records, its graph replays") {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned* memory = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaMalloc(reinterpret_cast<void**>(&memory), sizeof *memory) == cudaSuccess);
  *memory = 5;
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) == cudaErrorStreamCaptureUnsupported);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK(cudaMemsetAsync(memory, 0, sizeof *memory, stream) == cudaSuccess);
  CHECK(launch(stream, [memory] { atomicAdd(memory, 1u); }) == cudaSuccess);
  CHECK(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
  CHECK(status == cudaStreamCaptureStatusActive);
  CHECK(*memory == 5);
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  CHECK(*memory == 5);
  for (int i = 0; i < 2; ++i) {
    CHECK(cudaGraphLaunch(exec, stream) == cudaSuccess);
    CHECK(*memory == 32);
  }
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  // Whoever allocates or waits spoils a capture.
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  void* more = nullptr;
  CHECK(cudaMalloc(&more, 10) == cudaErrorStreamCaptureUnsupported);
  CHECK(launch(stream) == cudaErrorStreamCaptureInvalidated);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(launch(stream) == cudaSuccess);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("hostcuda: events") {
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  float milliseconds = -1;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaEventCreate(&begin) == cudaSuccess);
  REQUIRE(cudaEventCreate(&end) == cudaSuccess);
  CHECK(cudaEventRecord(begin, stream) == cudaSuccess);
  CHECK(cudaEventElapsedTime(&milliseconds, begin, end) == cudaErrorInvalidResourceHandle);  // not recorded
  CHECK(launch(stream) == cudaSuccess);
  CHECK(cudaEventRecord(end, stream) == cudaSuccess);
  CHECK(cudaEventSynchronize(end) == cudaSuccess);
  CHECK(cudaEventElapsedTime(&milliseconds, begin, end) == cudaSuccess);
  CHECK(milliseconds > 0);
  CHECK(cudaEventRecord(nullptr, stream) == cudaErrorInvalidResourceHandle);
  CHECK(cudaEventDestroy(begin) == cudaSuccess);
  CHECK(cudaEventDestroy(end) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}
