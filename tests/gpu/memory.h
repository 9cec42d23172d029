// Memory, streams and copies for programs that call the library's C interface on a device. On the CPU they are ordinary
// memory and nothing, so that the programs themselves can be tried without a GPU.
#pragma once
#include <cuda_runtime_api.h>
#include <flashnce/flashnce.h>

#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace fnce::gpu {

// FNCE_CUDA | FNCE_CPU, chosen once at the start of the program.
inline int32_t& device_kind() {
  static int32_t kind = FNCE_CUDA;
  return kind;
}
inline bool on_cuda() { return device_kind() == FNCE_CUDA; }

inline void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}
inline void check(fnce_status status, const char* what) {
  if (status != FNCE_OK)
    throw std::runtime_error(std::string(what) + ": " + fnce_status_string(status) + ": " + fnce_last_error());
}
#define FNCE_GPU_CHECK(call) fnce::gpu::check(call, #call)

// Device memory, aligned to FNCE_ALIGNMENT.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes) : bytes_(bytes) {
    if (on_cuda())
      FNCE_GPU_CHECK(cudaMalloc(&data_, bytes + 16));
    else
      data_ = ::operator new (bytes + 16, std::align_val_t{FNCE_ALIGNMENT});
  }
  template <class T>
  explicit Memory(const std::vector<T>& values) : Memory(values.size() * sizeof(T)) {
    upload(values.data(), bytes_);
  }
  Memory(Memory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Memory() {
    if (on_cuda())
      cudaFree(data_);
    else
      ::operator delete (data_, std::align_val_t{FNCE_ALIGNMENT});
  }

  void* get() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }
  // fill and upload: done when they return. CUDA's may end later, and streams that do not block would not wait for
  // them.
  void fill(int byte) {
    if (on_cuda()) {
      FNCE_GPU_CHECK(cudaMemset(data_, byte, bytes_));
      FNCE_GPU_CHECK(cudaStreamSynchronize(nullptr));
    } else {
      std::memset(data_, byte, bytes_);
    }
  }
  void upload(const void* from, size_t bytes) {
    if (bytes == 0) return;
    if (on_cuda()) {
      FNCE_GPU_CHECK(cudaMemcpy(data_, from, bytes, cudaMemcpyHostToDevice));
      FNCE_GPU_CHECK(cudaStreamSynchronize(nullptr));
    } else {
      std::memcpy(data_, from, bytes);
    }
  }
  // Appends the content to `out`.
  void append_to(std::vector<unsigned char>& out) const {
    const size_t at = out.size();
    out.resize(at + bytes_);
    if (on_cuda())
      FNCE_GPU_CHECK(cudaMemcpy(out.data() + at, data_, bytes_, cudaMemcpyDeviceToHost));
    else if (bytes_ > 0)
      std::memcpy(out.data() + at, data_, bytes_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

class Stream {
 public:
  Stream() {
    if (on_cuda()) FNCE_GPU_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void wait() const {
    if (on_cuda()) FNCE_GPU_CHECK(cudaStreamSynchronize(stream_));
  }

 private:
  cudaStream_t stream_ = nullptr;
};

// What `enqueue` puts on a stream, captured once.
class Graph {
 public:
  template <class Enqueue>
  Graph(const Stream& stream, const Enqueue& enqueue) {
    cudaGraph_t graph = nullptr;
    FNCE_GPU_CHECK(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream.get(), &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    FNCE_GPU_CHECK(cudaStreamEndCapture(stream.get(), &graph));
    const cudaError_t code = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(code, "cudaGraphInstantiate");
  }
  ~Graph() { cudaGraphExecDestroy(executable_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(const Stream& stream) const { FNCE_GPU_CHECK(cudaGraphLaunch(executable_, stream.get())); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace fnce::gpu
