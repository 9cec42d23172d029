// Streams, graphs, and the launch of kernels.
#include <cstdio>
#include <utility>

#include "hostcuda/runtime/block.h"
#include "hostcuda/runtime/cuda_state.h"

namespace hostcuda {
namespace {

constexpr unsigned kMaxGridYZ = 65535, kMaxGridX = 2147483647;

using Lock = std::lock_guard<std::mutex>;

std::string& failure_of_thread() {
  static thread_local std::string message;
  return message;
}

bool is_default(cudaStream_t stream) { return !stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread; }

// With the state's mutex held.
bool any_capture() {
  for (const cudaStream_t stream : cuda_state().streams)
    if (stream->capture != cudaStreamCaptureStatusNone && stream->mode != cudaStreamCaptureModeRelaxed) return true;
  return false;
}
void spoil_captures() {
  for (const cudaStream_t stream : cuda_state().streams)
    if (stream->capture == cudaStreamCaptureStatusActive) stream->capture = cudaStreamCaptureStatusInvalidated;
}

cudaError_t execute(Grid3 grid, unsigned threads, size_t shared_bytes, const std::string& name,
                    const std::function<void()>& body) {
  const std::string message = run_grid(grid, threads, shared_bytes, name.c_str(), body);
  if (message.empty()) return cudaSuccess;
  failure_of_thread() = message;
  if (!options().quiet) std::fprintf(stderr, "hostcuda: %s\n", message.c_str());
  return cudaErrorLaunchFailure;
}

}  // namespace

std::string last_failure() { return failure_of_thread(); }

cudaStreamCaptureMode& capture_mode_of_thread() {
  thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  return mode;
}

cudaError_t refuse_in_capture() {
  if (capture_mode_of_thread() == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  const Lock lock(cuda_state().mutex);
  if (!any_capture()) return cudaSuccess;
  spoil_captures();
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t enqueue(cudaStream_t stream, bool needs_current_device, std::function<cudaError_t()> work) {
  {
    CudaState& state = cuda_state();
    const Lock lock(state.mutex);
    if (!state.here()) return cudaErrorNoDevice;
    if (is_default(stream)) {
      if (any_capture()) {
        spoil_captures();
        return cudaErrorStreamCaptureImplicit;
      }
    } else {
      if (!state.streams.count(stream)) return cudaErrorInvalidResourceHandle;
      if (needs_current_device && stream->device != current_device()) return cudaErrorInvalidResourceHandle;
      if (stream->capture == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
      if (stream->capture == cudaStreamCaptureStatusActive) {
        stream->recorded.push_back(std::move(work));
        return cudaSuccess;
      }
    }
  }
  return work();
}

int load() { return call("cudaFuncGetAttributes", refuse_in_capture); }

int launch(Grid3 grid, unsigned threads, size_t shared_bytes, const char* name, fnce_stream stream,
           std::function<void()> body) {
  return call(kLaunch, [&] {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMaxGridX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ ||
        threads == 0 || threads > kMaxThreads)
      return cudaErrorInvalidConfiguration;
    size_t most = 0;
    {
      const Lock lock(cuda_state().mutex);
      const DeviceProperties* properties = cuda_state().here();
      if (!properties) return cudaErrorNoDevice;
      most = static_cast<size_t>(properties->shared_optin);
    }
    if (shared_bytes > most || shared_bytes > kMaxShared) return cudaErrorInvalidValue;
    return enqueue(stream, true, [=, kernel = std::string(name), body = std::move(body)] {
      return execute(grid, threads, shared_bytes, kernel, body);
    });
  });
}

}  // namespace hostcuda

using hostcuda::call;
using hostcuda::cuda_state;
using hostcuda::Lock;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call("cudaStreamCreate", [=] {
    if (!stream || flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
    const Lock lock(cuda_state().mutex);
    if (!cuda_state().here()) return cudaErrorNoDevice;
    *stream = new CUstream_st;
    (*stream)->device = hostcuda::current_device();
    cuda_state().streams.insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call("cudaStreamDestroy", [=] {
    const Lock lock(cuda_state().mutex);
    if (!cuda_state().streams.erase(stream)) return cudaErrorInvalidResourceHandle;
    delete stream;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call("cudaStreamSynchronize", [=] {
    const Lock lock(cuda_state().mutex);
    if (hostcuda::is_default(stream)) {
      if (!hostcuda::any_capture()) return cudaSuccess;
      hostcuda::spoil_captures();
      return cudaErrorStreamCaptureImplicit;
    }
    if (!cuda_state().streams.count(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture == cudaStreamCaptureStatusNone) return cudaSuccess;
    stream->capture = cudaStreamCaptureStatusInvalidated;
    return cudaErrorStreamCaptureUnsupported;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call("cudaStreamQuery", [=] {
    const Lock lock(cuda_state().mutex);
    return hostcuda::is_default(stream) || cuda_state().streams.count(stream) ? cudaSuccess
                                                                              : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  return call("cudaStreamGetDevice", [=] {
    const Lock lock(cuda_state().mutex);
    if (!device) return cudaErrorInvalidValue;
    if (hostcuda::is_default(stream)) {
      *device = hostcuda::current_device();
      return cudaSuccess;
    }
    if (!cuda_state().streams.count(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture != cudaStreamCaptureStatusNone) {  // as some drivers do
      stream->capture = cudaStreamCaptureStatusInvalidated;
      return cudaErrorStreamCaptureUnsupported;
    }
    *device = stream->device;
    return cudaSuccess;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return call("cudaThreadExchangeStreamCaptureMode", [=] {
    if (!mode) return cudaErrorInvalidValue;
    std::swap(*mode, hostcuda::capture_mode_of_thread());
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call("cudaStreamIsCapturing", [=] {
    const Lock lock(cuda_state().mutex);
    if (!status) return cudaErrorInvalidValue;
    *status = cudaStreamCaptureStatusNone;
    if (hostcuda::is_default(stream)) return hostcuda::any_capture() ? cudaErrorStreamCaptureImplicit : cudaSuccess;
    if (!cuda_state().streams.count(stream)) return cudaErrorInvalidResourceHandle;
    *status = stream->capture;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call("cudaStreamBeginCapture", [=] {
    const Lock lock(cuda_state().mutex);
    if (hostcuda::is_default(stream)) return cudaErrorStreamCaptureUnsupported;
    if (!cuda_state().streams.count(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture != cudaStreamCaptureStatusNone) return cudaErrorIllegalState;
    stream->capture = cudaStreamCaptureStatusActive;
    stream->mode = mode;
    stream->recorded.clear();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call("cudaStreamEndCapture", [=] {
    const Lock lock(cuda_state().mutex);
    if (!graph) return cudaErrorInvalidValue;
    *graph = nullptr;
    if (!cuda_state().streams.count(stream)) return cudaErrorInvalidResourceHandle;
    const cudaStreamCaptureStatus status = std::exchange(stream->capture, cudaStreamCaptureStatusNone);
    if (status == cudaStreamCaptureStatusNone) return cudaErrorIllegalState;
    if (status == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
    *graph = new CUgraph_st{std::move(stream->recorded)};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return call("cudaGraphInstantiate", [=] {
    if (!exec || !graph) return cudaErrorInvalidValue;
    *exec = new CUgraphExec_st{hostcuda::current_device(), graph->nodes};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call("cudaGraphLaunch", [=] {
    if (!exec) return cudaErrorInvalidValue;
    return hostcuda::enqueue(stream, false, [exec] {
      for (const auto& node : exec->nodes)
        if (const cudaError_t error = node()) return error;
      return cudaSuccess;
    });
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return call("cudaGraphExecDestroy", [=] {
    delete exec;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call("cudaGraphDestroy", [=] {
    delete graph;
    return cudaSuccess;
  });
}
