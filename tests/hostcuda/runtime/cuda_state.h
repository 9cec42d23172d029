// What the invented CUDA remembers.
#pragma once
#include <cuda_runtime_api.h>

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "hostcuda/runtime.h"

// A stream executes at once, except while it is captured.
struct CUstream_st {
  int device = 0;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::vector<std::function<cudaError_t()>> recorded;
};
struct CUevent_st {
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
};
struct CUgraph_st {
  std::vector<std::function<cudaError_t()>> nodes;
};
struct CUgraphExec_st {
  int device = 0;
  std::vector<std::function<cudaError_t()>> nodes;
};

namespace hostcuda {

struct Allocation {
  size_t bytes = 0;
  int device = 0;
  cudaMemoryType type = cudaMemoryTypeUnregistered;
};

struct PlantedFailure {
  std::string name;
  cudaError_t code;
  int after;
};

struct CudaState {
  std::mutex mutex;
  std::vector<DeviceProperties> devices;
  std::map<const char*, Allocation> allocations;  // by first byte
  std::set<cudaStream_t> streams;
  std::map<std::string, int64_t> calls;
  std::vector<PlantedFailure> failures;

  CudaState();
  // The properties of the calling OS thread's device; null where there is none. With the mutex held.
  const DeviceProperties* here() const;
};
CudaState& cuda_state();

// The calling OS thread's.
int& current_device();
cudaError_t& last_error();

// Counts a call; the failure that was planted for it, if any.
cudaError_t enter(const char* name);

// The frame of every call: `body` runs unless a failure was planted, and what it returns becomes the last error.
template <class Body>
cudaError_t call(const char* name, const Body& body) {
  cudaError_t error = enter(name);
  if (error == cudaSuccess) error = body();
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error() = error;
  return error;
}

// The allocation that holds the address; its type is cudaMemoryTypeUnregistered where there is none.
Allocation allocation_of(const void* pointer);

// How the calling thread wants its unsafe calls taken during captures (cudaThreadExchangeStreamCaptureMode).
cudaStreamCaptureMode& capture_mode_of_thread();
// Refuses what may not be called while a stream is being captured, and spoils the capture, as CUDA does.
cudaError_t refuse_in_capture();
// Executes `work` on the stream, or records it.
cudaError_t enqueue(cudaStream_t stream, bool needs_current_device, std::function<cudaError_t()> work);

}  // namespace hostcuda
