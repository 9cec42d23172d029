// Device memory and times of what is put on a stream, for the benchmarks on a GPU: CUDA events, medians, with a CUDA graph and
// without.
#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

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

struct Spread {
  double median = 0, least = 0, most = 0;  // microseconds
};

// Times what `enqueue` puts on the stream.
class Timer {
 public:
  Timer() {
    FNCE_BENCH_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    FNCE_BENCH_CHECK(cudaEventCreate(&begin_));
    FNCE_BENCH_CHECK(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  cudaStream_t stream() const { return stream_; }

  // Of `enqueue` as it is, divided by the `steps` that it holds: 3 times to warm up, then up to 15 times or `seconds`.
  template <class Enqueue>
  Spread stream_us(int steps, double seconds, const Enqueue& enqueue) const {
    constexpr int kWarm = 3, kMost = 15, kFewest = 3;
    std::vector<double> times;
    const auto start = std::chrono::steady_clock::now();
    for (int i = -kWarm; i < kMost; ++i) {
      FNCE_BENCH_CHECK(cudaEventRecord(begin_, stream_));
      enqueue();
      FNCE_BENCH_CHECK(cudaEventRecord(end_, stream_));
      FNCE_BENCH_CHECK(cudaEventSynchronize(end_));
      float ms = 0;
      FNCE_BENCH_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
      if (i >= 0) times.push_back(ms * 1e3 / steps);
      const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (elapsed > seconds && times.size() >= kFewest) break;
    }
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times.front(), times.back()};
  }

  // The same captured in a graph.
  template <class Enqueue>
  Spread graph_us(int steps, double seconds, const Enqueue& enqueue) const {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    FNCE_BENCH_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    FNCE_BENCH_CHECK(cudaStreamEndCapture(stream_, &graph));
    const cudaError_t code = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(code, "cudaGraphInstantiate");
    const Spread spread = stream_us(steps, seconds, [&] { FNCE_BENCH_CHECK(cudaGraphLaunch(executable, stream_)); });
    cudaGraphExecDestroy(executable);
    return spread;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace fnce::bench::gpu
