// CUDA by the names of its functions.
#include "support/cuda_device.h"

#include <dlfcn.h>

#include <stdexcept>

namespace support {
namespace {

using Handle = void*;  // of a context, a stream, a graph

// The driver's functions that the tests need. Numbers of devices are int, addresses 64 bits.
struct Driver {
  int (*init)(unsigned);
  int (*device_get)(int*, int);
  int (*retain_context)(Handle*, int);
  int (*set_context)(Handle);
  int (*synchronize_context)();
  int (*allocate)(unsigned long long*, size_t);
  int (*release)(unsigned long long);
  int (*upload)(unsigned long long, const void*, size_t);
  int (*download)(void*, unsigned long long, size_t);
  int (*create_stream)(Handle*, unsigned);
  int (*destroy_stream)(Handle);
  int (*synchronize_stream)(Handle);
  int (*begin_capture)(Handle, int);
  int (*end_capture)(Handle, Handle*);
  int (*instantiate)(Handle*, Handle, unsigned long long);
  int (*launch_graph)(Handle, Handle);
  int (*destroy_graph)(Handle);
  int (*destroy_executable)(Handle);
};

constexpr unsigned kNonBlocking =
    1;  // a stream that does not wait for the default one: a launch on the wrong stream shows
constexpr int kThreadLocalCapture = 1;

void check(int code, const char* call) {
  if (code != 0) throw std::runtime_error(std::string(call) + " failed with CUDA's error " + std::to_string(code));
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool load(Driver& d, std::string& reason) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == nullptr) {
    reason = "no libcuda.so.1";
    return false;
  }
  const bool all =
      find(library, "cuInit", d.init) && find(library, "cuDeviceGet", d.device_get) &&
      find(library, "cuDevicePrimaryCtxRetain", d.retain_context) && find(library, "cuCtxSetCurrent", d.set_context) &&
      find(library, "cuCtxSynchronize", d.synchronize_context) && find(library, "cuMemAlloc_v2", d.allocate) &&
      find(library, "cuMemFree_v2", d.release) && find(library, "cuMemcpyHtoD_v2", d.upload) &&
      find(library, "cuMemcpyDtoH_v2", d.download) && find(library, "cuStreamCreate", d.create_stream) &&
      find(library, "cuStreamDestroy_v2", d.destroy_stream) &&
      find(library, "cuStreamSynchronize", d.synchronize_stream) &&
      find(library, "cuStreamBeginCapture_v2", d.begin_capture) && find(library, "cuStreamEndCapture", d.end_capture) &&
      find(library, "cuGraphInstantiateWithFlags", d.instantiate) && find(library, "cuGraphLaunch", d.launch_graph) &&
      find(library, "cuGraphDestroy", d.destroy_graph) && find(library, "cuGraphExecDestroy", d.destroy_executable);
  if (!all) reason = "a libcuda.so.1 that is too old";
  return all;
}

// With the functions of either interface.
template <class Functions, class Wait>
bool replay_graph(const Functions& f, Handle stream, const std::function<void()>& enqueue,
                  const std::vector<std::function<void()>>& before, Wait&& wait) {
  Handle graph = nullptr, executable = nullptr;
  check(f.begin_capture(stream, kThreadLocalCapture), "the start of a capture");
  enqueue();
  check(f.end_capture(stream, &graph), "the end of a capture");
  check(f.instantiate(&executable, graph, 0), "an instance of a graph");
  for (const auto& prepare : before) {
    prepare();
    check(f.launch_graph(executable, stream), "the launch of a graph");
    wait();
  }
  check(f.destroy_executable(executable), "the end of a graph's instance");
  check(f.destroy_graph(graph), "the end of a graph");
  return true;
}

class CudaDevice final : public Device {
 public:
  // The library under test uses the primary context too.
  explicit CudaDevice(const Driver& driver) : d_(driver) {
    int device = 0;
    check(d_.init(0), "cuInit");
    check(d_.device_get(&device, 0), "cuDeviceGet");
    check(d_.retain_context(&context_, device), "cuDevicePrimaryCtxRetain");
  }

  int32_t kind() const override { return FNCE_CUDA; }
  int32_t index() const override { return 0; }
  bool host_memory() const override { return false; }
  int64_t max_products() const override { return 6'000'000; }

  // Every thread has a stream of its own.
  fnce_stream stream() const override {
    struct Own {
      explicit Own(const CudaDevice& device) : driver(device.d_) {
        device.enter();
        check(driver.create_stream(&stream, kNonBlocking), "cuStreamCreate");
      }
      ~Own() { driver.destroy_stream(stream); }
      const Driver& driver;
      Handle stream = nullptr;
    };
    static thread_local const Own own(*this);
    return static_cast<fnce_stream>(own.stream);
  }

  void* allocate(size_t bytes) const override {
    enter();
    unsigned long long address = 0;
    check(d_.allocate(&address, bytes), "cuMemAlloc");
    return reinterpret_cast<void*>(address);
  }

  // Kernels of any stream may still use it.
  void release(void* memory) const override {
    enter();
    d_.synchronize_context();
    d_.release(address_of(memory));
  }

  // The copy may still be under way when the call returns; streams that do not block would not wait for it.
  void upload(void* to, const void* from, size_t bytes) const override {
    enter();
    if (bytes == 0) return;
    check(d_.upload(address_of(to), from, bytes), "cuMemcpyHtoD");
    check(d_.synchronize_stream(nullptr), "cuStreamSynchronize");
  }

  void download(void* to, const void* from, size_t bytes) const override {
    enter();
    if (bytes > 0) check(d_.download(to, address_of(from), bytes), "cuMemcpyDtoH");
  }

  void synchronize() const override {
    enter();
    check(d_.synchronize_stream(stream()), "cuStreamSynchronize");
  }

  bool replay(const std::function<void()>& enqueue, const std::vector<std::function<void()>>& before) const override {
    enter();
    return replay_graph(d_, stream(), enqueue, before, [this] { synchronize(); });
  }

 private:
  static unsigned long long address_of(const void* memory) { return reinterpret_cast<unsigned long long>(memory); }
  void enter() const { check(d_.set_context(context_), "cuCtxSetCurrent"); }

  const Driver d_;
  Handle context_ = nullptr;
};

// CUDA's runtime as the library under test has it inside, where kernels run on the CPU before a launch returns.
struct Runtime {
  int (*allocate)(void**, size_t);
  int (*release)(void*);
  int (*create_stream)(Handle*, unsigned);
  int (*begin_capture)(Handle, int);
  int (*end_capture)(Handle, Handle*);
  int (*instantiate)(Handle*, Handle, unsigned long long);
  int (*launch_graph)(Handle, Handle);
  int (*destroy_graph)(Handle);
  int (*destroy_executable)(Handle);
};

bool load(Runtime& r) {
  return find(RTLD_DEFAULT, "cudaMalloc", r.allocate) && find(RTLD_DEFAULT, "cudaFree", r.release) &&
         find(RTLD_DEFAULT, "cudaStreamCreateWithFlags", r.create_stream) &&
         find(RTLD_DEFAULT, "cudaStreamBeginCapture", r.begin_capture) &&
         find(RTLD_DEFAULT, "cudaStreamEndCapture", r.end_capture) &&
         find(RTLD_DEFAULT, "cudaGraphInstantiate", r.instantiate) &&
         find(RTLD_DEFAULT, "cudaGraphLaunch", r.launch_graph) &&
         find(RTLD_DEFAULT, "cudaGraphDestroy", r.destroy_graph) &&
         find(RTLD_DEFAULT, "cudaGraphExecDestroy", r.destroy_executable);
}

// Its library brings a CUDA runtime along, which refuses copies between places that it has not handed out.
class EmulatedCudaDevice final : public Device {
 public:
  explicit EmulatedCudaDevice(const Runtime& runtime) : r_(runtime) {
    check(r_.create_stream(&stream_, kNonBlocking), "cudaStreamCreate");
  }

  int32_t kind() const override { return FNCE_CUDA; }
  int32_t index() const override { return 0; }
  fnce_stream stream() const override { return static_cast<fnce_stream>(stream_); }
  bool host_memory() const override { return false; }
  bool emulated() const override { return true; }
  int64_t max_products() const override { return 400'000; }
  void* allocate(size_t bytes) const override {
    void* memory = nullptr;
    check(r_.allocate(&memory, bytes), "cudaMalloc");
    return memory;
  }
  void release(void* memory) const override { r_.release(memory); }
  void upload(void* to, const void* from, size_t bytes) const override { copy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) const override { copy(to, from, bytes); }
  void synchronize() const override {}

  bool replay(const std::function<void()>& enqueue, const std::vector<std::function<void()>>& before) const override {
    return replay_graph(r_, stream_, enqueue, before, [] {});
  }

 private:
  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

  const Runtime r_;
  Handle stream_ = nullptr;
};

}  // namespace

const Device* cuda_device(std::string& reason) {
  static Driver driver = {};
  if (!load(driver, reason)) return nullptr;
  static const CudaDevice device(driver);
  return &device;
}

const Device* emulated_cuda_device() {
  static Runtime runtime = {};
  if (!load(runtime)) return nullptr;
  static const EmulatedCudaDevice device(runtime);
  return &device;
}

}  // namespace support
