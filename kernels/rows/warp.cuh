// Reductions over the 32 lanes of a warp, by CUB: a fixed tree in the order of the lanes, so that the bits are the same
// in every run. Under the harness of tests/hostcuda its model of CUB takes CUB's place.
#pragma once
#include "kernels/contract/platform.cuh"
// CUB needs what platform.cuh says of CUDA.
#include <cub/warp/warp_reduce.cuh>

namespace fnce::cuda {

struct Add {
  template <class T>
  FNCE_DEVICE_MEMBER T operator()(T x, T y) const {
    return x + y;
  }
};

// The larger; a NaN loses against a number.
struct Max {
  FNCE_DEVICE_MEMBER float operator()(float x, float y) const { return fmaxf(x, y); }
};

// The larger, or NaN if either is.
struct MaxOrNan {
  template <class T>
  FNCE_DEVICE_MEMBER T operator()(T x, T y) const {
    return x > y || x != x ? x : y;
  }
};

// Lane 0 gets the result, the other lanes nothing of use. `combine` is associative, and need not commute.
template <class T, class Combine>
FNCE_DEVICE T reduce_to_lane_0(const T& value, Combine combine) {
  using Reduce = cub::WarpReduce<T>;
  typename Reduce::TempStorage none;  // whole warps exchange registers
  return Reduce(none).Reduce(value, combine);
}

// The value of the lane whose number differs in the bits of `mask`. T consists of 32-bit words.
template <class T>
FNCE_DEVICE T shuffled_xor(const T& value, int mask) {
  constexpr int kWords = sizeof(T) / sizeof(uint32_t);
  static_assert(kWords * sizeof(uint32_t) == sizeof(T));
  uint32_t words[kWords];
  memcpy(words, &value, sizeof value);
  FNCE_UNROLL for (int w = 0; w < kWords; ++w) words[w] = __shfl_xor_sync(kFullWarp, words[w], mask);
  T out;
  memcpy(&out, words, sizeof out);
  return out;
}

// Every lane gets the result.
template <class T, class Combine>
FNCE_DEVICE T reduce_warp(T value, Combine combine) {
  return __shfl_sync(kFullWarp, reduce_to_lane_0(value, combine), 0);
}

}  // namespace fnce::cuda
