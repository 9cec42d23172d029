// Runs the check kernels on the device.
#define FNCE_CONFORMANCE_SIDE on_device
#include <stdexcept>

#include "gpu/checks.cuh"

namespace fnce::conformance {
namespace {

void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}

class Memory {
 public:
  explicit Memory(size_t bytes) { check(cudaMalloc(&memory_, bytes + 16), "cudaMalloc"); }
  ~Memory() { cudaFree(memory_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  uint32_t* words() const { return static_cast<uint32_t*>(memory_); }

 private:
  void* memory_ = nullptr;
};

void upload(const Memory& to, const Words& from) {
  if (!from.empty()) check(cudaMemcpy(to.words(), from.data(), from.size() * 4, cudaMemcpyHostToDevice), "cudaMemcpy");
}

}  // namespace

DeviceName find_device() {
  int count = 0;
  if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess) return {"", cudaGetErrorString(code)};
  if (count == 0) return {"", "there is none"};
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return {properties.name, "", properties.major};
}

Words run_on_device(const Job& job) {
  const Memory x(job.x.size() * 4), y(job.y.size() * 4), out(job.results * 4);
  upload(x, job.x);
  upload(y, job.y);
  check(cudaMemset(out.words(), 0xFF, job.results * 4), "cudaMemset");
  Job bound = job;
  bound.params.x = x.words();
  bound.params.y = y.words();
  bound.params.out = out.words();
  on_device::dispatch(bound,
                      [&](auto kernel, const char* name, on_device::Blocks blocks, unsigned threads, int shared) {
                        kernel<<<dim3(blocks.x, blocks.y), threads, static_cast<size_t>(shared)>>>(bound.params);
                        check(cudaGetLastError(), name);
                      });
  check(cudaDeviceSynchronize(), "the kernel");
  Words results(job.results);
  check(cudaMemcpy(results.data(), out.words(), job.results * 4, cudaMemcpyDeviceToHost), "cudaMemcpy");
  return results;
}

}  // namespace fnce::conformance
