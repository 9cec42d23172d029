// What kernels use of NVIDIA's CUB, modelled on the harness. Found as <cub/warp/warp_reduce.cuh> where
// tests/hostcuda/include comes first among the include folders.
#pragma once
#include <algorithm>

#include "hostcuda/device.h"

namespace cub {

// A reduction over a whole warp in the order of CUB's own (warp/specializations/warp_reduce_shfl.cuh of CUB 3.0,
// ReduceStep): in step s a lane takes the value 2^s lanes above it, where there is one, as the right operand.
template <class T>
class WarpReduce {
 public:
  struct TempStorage {};
  explicit WarpReduce(TempStorage&) {}

  // The result is that of lane 0; the other lanes get what no sum is.
  template <class Combine>
  T Reduce(T value, Combine combine, int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
    const unsigned lane = hostcuda::context().lane;
    for (unsigned offset = 1; offset < 32; offset *= 2) {
      const T above = from(value, lane + offset < 32 ? lane + offset : lane, {file, line});
      if (lane + offset < 32) value = combine(value, above);
    }
    if (lane != 0) std::memset(static_cast<void*>(&value), 0xFF, sizeof value);
    return value;
  }

 private:
  // Another lane's value, in as many exchanges as it takes.
  static T from(T value, unsigned source, hostcuda::Where where) {
    static_assert(std::is_trivially_copyable_v<T>);
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof value);
    for (size_t at = 0; at < sizeof value; at += hostcuda::kSlotBytes) {
      const size_t count = std::min(hostcuda::kSlotBytes, sizeof value - at);
      const hostcuda::Slot* slots =
          hostcuda::warp_exchange(bytes + at, count, hostcuda::Op::kShflDown, 0xffffffffu, where);
      std::memcpy(bytes + at, slots[source].bytes, count);
    }
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
};

}  // namespace cub
