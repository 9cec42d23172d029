// What a kernel sees of CUDA when it is compiled as C++ and run by launch.h: threads of one warp meet in collectives,
// those of a block at barriers. Memory is ordered as CUDA documents it and no more: __syncthreads and __syncwarp order
// it, __threadfence with an atomic does, and shuffles, votes and matrix instructions do not.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hostcuda/vector_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

namespace hostcuda {

constexpr bool kOnHost = true;

// The place in the source where a thread waits, for messages and to tell barriers apart.
struct Where {
  const char* file;
  int line;
};

// What one CUDA thread knows of itself.
struct Context {
  uint3 thread_index, block_index;
  dim3 block_size, grid_size;
  unsigned thread;  // in its block
  unsigned lane, warp;
  unsigned char* shared;
  size_t shared_bytes;
};
const Context& context();

// True inside a kernel.
bool in_kernel();

// Ends the launch with a message that is preceded by kernel, block and thread. Does not return.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

inline unsigned char* dynamic_shared() { return context().shared; }

// What threads wait in. All that meet must have come for the same.
enum class Op : int {
  kSyncthreads,
  kSyncthreadsOr,
  kSyncthreadsAnd,
  kSyncthreadsCount,
  kSyncwarp,
  kShfl,
  kShflXor,
  kShflDown,
  kShflUp,
  kAny,
  kAll,
  kBallot,
  kLdmatrix,
  kLdmatrixTrans,
  kMmaF16,
  kMmaBf16,
};

constexpr size_t kSlotBytes = 16;
struct alignas(16) Slot {
  unsigned char bytes[kSlotBytes];
};

// All threads of the block wait for each other; returns for how many of them `predicate` holds. Orders memory.
unsigned block_barrier(Op op, bool predicate, Where where);
// All lanes of the warp wait for each other. Orders memory.
void warp_barrier(uint32_t mask, Where where);
// All 32 lanes hand in a value of up to kSlotBytes and get all 32. Orders nothing. The result holds until the next
// call.
const Slot* warp_exchange(const void* value, size_t bytes, Op op, uint32_t mask, Where where);
// Bit i: the predicate of lane i. Orders nothing.
uint32_t warp_vote(bool predicate, Op op, uint32_t mask, Where where);
// A fence before an atomic makes all before it visible to whoever reads the atomic's result: release() and acquire()
// are called around every atomic. Without a fence by its thread, an atomic releases nothing.
void fence();
void release(const void* address);
void acquire(const void* address);

template <class T>
T warp_shuffle(T value, unsigned source_lane, Op op, uint32_t mask, Where where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kSlotBytes);
  const Slot* slots = warp_exchange(&value, sizeof value, op, mask, where);
  std::memcpy(&value, slots[source_lane].bytes, sizeof value);
  return value;
}

}  // namespace hostcuda

#define threadIdx (hostcuda::context().thread_index)
#define blockIdx (hostcuda::context().block_index)
#define blockDim (hostcuda::context().block_size)
#define gridDim (hostcuda::context().grid_size)
#define warpSize 32

// The place of the call, as default arguments.
#define HOSTCUDA_WHERE int line = __builtin_LINE(), const char *file = __builtin_FILE()
#define HOSTCUDA_HERE \
  hostcuda::Where { file, line }

inline void __syncthreads(HOSTCUDA_WHERE) { hostcuda::block_barrier(hostcuda::Op::kSyncthreads, false, HOSTCUDA_HERE); }
inline int __syncthreads_or(int predicate, HOSTCUDA_WHERE) {
  return hostcuda::block_barrier(hostcuda::Op::kSyncthreadsOr, predicate != 0, HOSTCUDA_HERE) != 0;
}
inline int __syncthreads_and(int predicate, HOSTCUDA_WHERE) {
  return hostcuda::block_barrier(hostcuda::Op::kSyncthreadsAnd, predicate == 0, HOSTCUDA_HERE) == 0;
}
inline int __syncthreads_count(int predicate, HOSTCUDA_WHERE) {
  return static_cast<int>(hostcuda::block_barrier(hostcuda::Op::kSyncthreadsCount, predicate != 0, HOSTCUDA_HERE));
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, HOSTCUDA_WHERE) { hostcuda::warp_barrier(mask, HOSTCUDA_HERE); }

template <class T>
T __shfl_sync(uint32_t mask, T value, int source_lane, HOSTCUDA_WHERE) {
  return hostcuda::warp_shuffle(value, static_cast<unsigned>(source_lane) % 32, hostcuda::Op::kShfl, mask,
                                HOSTCUDA_HERE);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, HOSTCUDA_WHERE) {
  const unsigned source = (hostcuda::context().lane ^ static_cast<unsigned>(lane_mask)) % 32;
  return hostcuda::warp_shuffle(value, source, hostcuda::Op::kShflXor, mask, HOSTCUDA_HERE);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, HOSTCUDA_WHERE) {
  const unsigned lane = hostcuda::context().lane, source = lane + delta < 32 ? lane + delta : lane;
  return hostcuda::warp_shuffle(value, source, hostcuda::Op::kShflDown, mask, HOSTCUDA_HERE);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, HOSTCUDA_WHERE) {
  const unsigned lane = hostcuda::context().lane, source = lane >= delta ? lane - delta : lane;
  return hostcuda::warp_shuffle(value, source, hostcuda::Op::kShflUp, mask, HOSTCUDA_HERE);
}
inline int __any_sync(uint32_t mask, int predicate, HOSTCUDA_WHERE) {
  return hostcuda::warp_vote(predicate != 0, hostcuda::Op::kAny, mask, HOSTCUDA_HERE) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, HOSTCUDA_WHERE) {
  return hostcuda::warp_vote(predicate != 0, hostcuda::Op::kAll, mask, HOSTCUDA_HERE) == 0xffffffffu;
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, HOSTCUDA_WHERE) {
  return hostcuda::warp_vote(predicate != 0, hostcuda::Op::kBallot, mask, HOSTCUDA_HERE);
}

#undef HOSTCUDA_WHERE
#undef HOSTCUDA_HERE

inline void __threadfence() { hostcuda::fence(); }

// Relaxed, so that only a fence orders what is around them (on x86-64 the instruction itself is sequentially
// consistent).
inline unsigned atomicAdd(unsigned* address, unsigned value) {
  hostcuda::release(address);
  const unsigned before = __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  hostcuda::acquire(address);
  return before;
}
inline unsigned atomicOr(unsigned* address, unsigned value) {
  hostcuda::release(address);
  const unsigned before = __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
  hostcuda::acquire(address);
  return before;
}
inline unsigned atomicMax(unsigned* address, unsigned value) {
  hostcuda::release(address);
  unsigned before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(address, &before, before < value ? value : before, true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  hostcuda::acquire(address);
  return before;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }

// CUDA's min and max: a NaN loses against a number.
inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline int64_t min(int64_t a, int64_t b) { return b < a ? b : a; }
inline int64_t max(int64_t a, int64_t b) { return a < b ? b : a; }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
