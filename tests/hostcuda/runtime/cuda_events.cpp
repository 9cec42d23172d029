// Events: the time of the CPU when they are reached.
#include "hostcuda/runtime/cuda_state.h"

using hostcuda::call;

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return call("cudaEventCreate", [=] {
    if (!event) return cudaErrorInvalidValue;
    *event = new CUevent_st;
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call("cudaEventDestroy", [=] {
    if (!event) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call("cudaEventRecord", [=] {
    if (!event) return cudaErrorInvalidResourceHandle;
    return hostcuda::enqueue(stream, false, [event] {
      *event = {true, std::chrono::steady_clock::now()};
      return cudaSuccess;
    });
  });
}

// Streams execute at once: an event that is recorded has been reached.
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call("cudaEventSynchronize", [=] { return event ? cudaSuccess : cudaErrorInvalidResourceHandle; });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return call("cudaEventElapsedTime", [=] {
    if (!milliseconds) return cudaErrorInvalidValue;
    if (!begin || !end || !begin->recorded || !end->recorded) return cudaErrorInvalidResourceHandle;
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
    return cudaSuccess;
  });
}
