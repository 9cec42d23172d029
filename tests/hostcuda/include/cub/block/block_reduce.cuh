// What kernels use of NVIDIA's CUB, modelled on the harness: see warp/warp_reduce.cuh.
#pragma once
#include <cub/warp/warp_reduce.cuh>

namespace cub {

// A reduction over a block of kThreads in the order of CUB's own
// (block/specializations/block_reduce_warp_reductions.cuh of CUB 3.0): whole warps, then their results one after the
// other, by thread 0, behind a barrier.
template <class T, int kThreads>
class BlockReduce {
 public:
  static_assert(kThreads % 32 == 0);
  struct TempStorage {
    T of_warps[kThreads / 32];
  };
  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  // The result is that of thread 0; the other threads get what no sum is.
  template <class Combine>
  T Reduce(T value, Combine combine, int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
    typename WarpReduce<T>::TempStorage none;
    value = WarpReduce<T>(none).Reduce(value, combine, line, file);
    if (threadIdx.x % 32 == 0) storage_.of_warps[threadIdx.x / 32] = value;
    hostcuda::block_barrier(hostcuda::Op::kSyncthreads, false, {file, line});
    if (threadIdx.x == 0)
      for (int warp = 1; warp < kThreads / 32; ++warp) value = combine(value, storage_.of_warps[warp]);
    else
      std::memset(static_cast<void*>(&value), 0xFF, sizeof value);
    return value;
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
