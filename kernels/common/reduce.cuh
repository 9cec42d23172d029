// Sums and maxima over the threads of a block of kRowThreads: each warp by CUB, then the warps in order. The tree is fixed, so the
// bits are the same in every run.
#pragma once
#include "common/warp.cuh"

namespace fnce::cuda {

constexpr int kRowThreads = 128;
constexpr int kRowWarps = kRowThreads / 32;
constexpr int kMostSums = 4;  // values reduced at once
constexpr int64_t kReduceHalf = kRowWarps * kMostSums * 8;
constexpr int64_t kReduceBytes = 2 * kReduceHalf;  // shared memory of a BlockReduce

// Two places that reductions use in turn. A place is written again only after the barrier of the reduction in between, which no
// thread passes before it has read its results: one barrier per reduction is enough.
struct BlockReduce {
  unsigned char* memory;
  int turn;
};

// Every thread gets the result. All threads of the block arrive. (cub::BlockReduce gives one thread the result: to hand it to all
// would take a second barrier, in each of the reductions that a row's launches wait for.)
template <class T, int kCount, class Combine>
FNCE_DEVICE void reduce_block(BlockReduce& reduce, T (&values)[kCount], Combine combine) {
  static_assert(kCount <= kMostSums && sizeof(T) <= 8);
  FNCE_UNROLL for (int v = 0; v < kCount; ++v) values[v] = reduce_to_lane_0(values[v], combine);
  T* slots = reinterpret_cast<T*>(reduce.memory + reduce.turn * kReduceHalf);
  reduce.turn ^= 1;
  if (threadIdx.x % 32 == 0)
    FNCE_UNROLL for (int v = 0; v < kCount; ++v) slots[threadIdx.x / 32 * kCount + v] = values[v];
  __syncthreads();
  FNCE_UNROLL for (int v = 0; v < kCount; ++v) values[v] =
      combine(combine(slots[v], slots[kCount + v]), combine(slots[2 * kCount + v], slots[3 * kCount + v]));
}

template <class T>
FNCE_DEVICE T block_sum(BlockReduce& reduce, T value) {
  T values[1] = {value};
  reduce_block(reduce, values, Add());
  return values[0];
}

template <class T>
FNCE_DEVICE T block_max(BlockReduce& reduce, T value) {
  T values[1] = {value};
  reduce_block(reduce, values, MaxOrNan());
  return values[0];
}

// Sums over the columns of this thread, c = thread, thread + kRowThreads, ...: terms(c, piece) adds column c to `piece`. Pieces
// are added up on their own, so that rounding errors hardly grow with D.
template <int kCount, class Terms>
FNCE_DEVICE void sum_columns(int64_t d, float (&sums)[kCount], Terms&& terms) {
  constexpr int kPiece = 64;
  for (int64_t c = threadIdx.x; c < d;) {
    float piece[kCount] = {};
    for (int i = 0; i < kPiece && c < d; ++i, c += kRowThreads) terms(c, piece);
    FNCE_UNROLL for (int v = 0; v < kCount; ++v) sums[v] += piece[v];
  }
}

}  // namespace fnce::cuda
