// Memory: allocations that know their device, and copies that only work where CUDA's would.
#include <cstdlib>
#include <cstring>

#include "hostcuda/runtime/cuda_state.h"

namespace hostcuda {
namespace {

constexpr size_t kDeviceAlignment = 256;
constexpr int kFresh = 0xff;  // what new memory holds: NaNs, so that nobody relies on zeros

using Lock = std::lock_guard<std::mutex>;

bool on_device(const void* pointer) {
  const cudaMemoryType type = allocation_of(pointer).type;
  return type == cudaMemoryTypeDevice || type == cudaMemoryTypeManaged;
}

size_t bytes_on(int device) {
  size_t sum = 0;
  for (const auto& [pointer, allocation] : cuda_state().allocations)
    if (allocation.type != cudaMemoryTypeHost && allocation.device == device) sum += allocation.bytes;
  return sum;
}

cudaError_t allocate(void** pointer, size_t size, cudaMemoryType type) {
  if (!pointer) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (const cudaError_t error = refuse_in_capture()) return error;
  if (size == 0) return cudaSuccess;
  CudaState& state = cuda_state();
  const Lock lock(state.mutex);
  const DeviceProperties* properties = state.here();
  if (!properties) return cudaErrorNoDevice;
  const int device = current_device();
  if (type != cudaMemoryTypeHost) {
    const size_t total = properties->memory_bytes, used = bytes_on(device);
    if (used > total || size > total - used) return cudaErrorMemoryAllocation;
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, kDeviceAlignment, size) != 0) return cudaErrorMemoryAllocation;
  std::memset(memory, kFresh, size);
  state.allocations[static_cast<const char*>(memory)] = {size, device, type};
  *pointer = memory;
  return cudaSuccess;
}

cudaError_t release(void* pointer, bool host) {
  if (!pointer) return cudaSuccess;
  if (const cudaError_t error = refuse_in_capture()) return error;
  CudaState& state = cuda_state();
  const Lock lock(state.mutex);
  const auto found = state.allocations.find(static_cast<const char*>(pointer));
  if (found == state.allocations.end() || (found->second.type == cudaMemoryTypeHost) != host)
    return cudaErrorInvalidValue;
  state.allocations.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

// The whole range in one allocation. Managed and pinned memory count for either side.
bool inside(const void* pointer, size_t count, bool device) {
  const Allocation allocation = allocation_of(pointer);
  if (!device && allocation.type == cudaMemoryTypeDevice) return false;
  if (device && !on_device(pointer)) return false;
  if (allocation.type == cudaMemoryTypeUnregistered || count == 0) return true;
  const Allocation last = allocation_of(static_cast<const char*>(pointer) + count - 1);
  return last.bytes == allocation.bytes && last.type == allocation.type;
}

cudaError_t check_copy(const void* to, const void* from, size_t count, cudaMemcpyKind kind) {
  if (count == 0) return cudaSuccess;
  if (!to || !from || kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidValue;
  const bool named = kind != cudaMemcpyDefault;
  const bool to_device = named ? kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice : on_device(to);
  const bool from_device = named ? kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice : on_device(from);
  return inside(to, count, to_device) && inside(from, count, from_device) ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

Allocation allocation_of(const void* pointer) {
  CudaState& state = cuda_state();
  const Lock lock(state.mutex);
  auto after = state.allocations.upper_bound(static_cast<const char*>(pointer));
  if (after == state.allocations.begin()) return {};
  const auto& [first, allocation] = *--after;
  return static_cast<size_t>(static_cast<const char*>(pointer) - first) < allocation.bytes ? allocation : Allocation{};
}

size_t allocated_bytes() {
  const Lock lock(cuda_state().mutex);
  size_t sum = 0;
  for (int device = 0; device < static_cast<int>(cuda_state().devices.size()); ++device) sum += bytes_on(device);
  return sum;
}

int64_t allocations() {
  const Lock lock(cuda_state().mutex);
  return static_cast<int64_t>(cuda_state().allocations.size());
}

}  // namespace hostcuda

using hostcuda::call;

cudaError_t cudaMalloc(void** pointer, size_t size) {
  return call("cudaMalloc", [=] { return hostcuda::allocate(pointer, size, cudaMemoryTypeDevice); });
}

cudaError_t cudaMallocHost(void** pointer, size_t size) {
  return call("cudaMallocHost", [=] { return hostcuda::allocate(pointer, size, cudaMemoryTypeHost); });
}

cudaError_t cudaMallocManaged(void** pointer, size_t size, unsigned) {
  return call("cudaMallocManaged", [=] { return hostcuda::allocate(pointer, size, cudaMemoryTypeManaged); });
}

cudaError_t cudaFree(void* pointer) {
  return call("cudaFree", [=] { return hostcuda::release(pointer, false); });
}

cudaError_t cudaFreeHost(void* pointer) {
  return call("cudaFreeHost", [=] { return hostcuda::release(pointer, true); });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call("cudaMemGetInfo", [=] {
    const std::lock_guard<std::mutex> lock(hostcuda::cuda_state().mutex);
    const hostcuda::DeviceProperties* properties = hostcuda::cuda_state().here();
    if (!properties) return cudaErrorNoDevice;
    *total = properties->memory_bytes;
    const size_t used = hostcuda::bytes_on(hostcuda::current_device());
    *free = used < *total ? *total - used : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return call("cudaPointerGetAttributes", [=] {
    if (!attributes) return cudaErrorInvalidValue;
    const hostcuda::Allocation allocation = hostcuda::allocation_of(pointer);
    void* const address = const_cast<void*>(pointer);
    *attributes = {};
    attributes->type = allocation.type;
    attributes->device = allocation.type == cudaMemoryTypeUnregistered ? cudaInvalidDeviceId : allocation.device;
    attributes->devicePointer = allocation.type == cudaMemoryTypeUnregistered ? nullptr : address;
    attributes->hostPointer = allocation.type == cudaMemoryTypeDevice ? nullptr : address;
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t count, cudaMemcpyKind kind) {
  return call("cudaMemcpy", [=] {
    cudaError_t error = hostcuda::refuse_in_capture();
    if (error == cudaSuccess) error = hostcuda::check_copy(to, from, count, kind);
    if (error == cudaSuccess && count) std::memmove(to, from, count);
    return error;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t count, cudaMemcpyKind kind, cudaStream_t stream) {
  return call("cudaMemcpyAsync", [=] {
    if (const cudaError_t error = hostcuda::check_copy(to, from, count, kind)) return error;
    return hostcuda::enqueue(stream, false, [=] {
      if (count) std::memmove(to, from, count);
      return cudaSuccess;
    });
  });
}

cudaError_t cudaMemset(void* pointer, int value, size_t count) {
  return call("cudaMemset", [=] {
    cudaError_t error = hostcuda::refuse_in_capture();
    if (error == cudaSuccess && count && !hostcuda::inside(pointer, count, true)) error = cudaErrorInvalidValue;
    if (error == cudaSuccess && count) std::memset(pointer, value, count);
    return error;
  });
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t count, cudaStream_t stream) {
  return call("cudaMemsetAsync", [=] {
    if (count && !hostcuda::inside(pointer, count, true)) return cudaErrorInvalidValue;
    return hostcuda::enqueue(stream, false, [=] {
      if (count) std::memset(pointer, value, count);
      return cudaSuccess;
    });
  });
}
