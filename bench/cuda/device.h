// Device memory, a stream with the time of what is put on it, and graphs, for the benchmarks on a GPU.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace fnce::bench::gpu {

inline void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}
#define FNCE_BENCH_CHECK(call) fnce::bench::gpu::check(call, #call)

class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes) : bytes_(bytes) { FNCE_BENCH_CHECK(cudaMalloc(&data_, bytes + 256)); }
  Memory(Memory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Memory() { cudaFree(data_); }
  void* get() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

inline int attribute(cudaDeviceAttr which) {
  int value = 0;
  FNCE_BENCH_CHECK(cudaDeviceGetAttribute(&value, which, 0));
  return value;
}

class Stopwatch {
 public:
  Stopwatch() {
    FNCE_BENCH_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    FNCE_BENCH_CHECK(cudaEventCreate(&begin_));
    FNCE_BENCH_CHECK(cudaEventCreate(&end_));
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  cudaStream_t stream() const { return stream_; }

  // Between two events around what `enqueue` puts on the stream.
  template <class Enqueue>
  double seconds(const Enqueue& enqueue) const {
    FNCE_BENCH_CHECK(cudaEventRecord(begin_, stream_));
    enqueue();
    FNCE_BENCH_CHECK(cudaEventRecord(end_, stream_));
    FNCE_BENCH_CHECK(cudaEventSynchronize(end_));
    float milliseconds = 0;
    FNCE_BENCH_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds * 1e-3;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// The captured work that `enqueue` puts on a stream.
class Graph {
 public:
  template <class Enqueue>
  Graph(cudaStream_t stream, const Enqueue& enqueue) {
    cudaGraph_t graph = nullptr;
    FNCE_BENCH_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    FNCE_BENCH_CHECK(cudaStreamEndCapture(stream, &graph));
    const cudaError_t code = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(code, "cudaGraphInstantiate");
  }
  ~Graph() { cudaGraphExecDestroy(executable_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(cudaStream_t stream) const { FNCE_BENCH_CHECK(cudaGraphLaunch(executable_, stream)); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace fnce::bench::gpu
