// Sums and maxima over the threads of a block of kRowThreads, by CUB: each warp, then the warps in order. The tree is
// fixed, so the bits are the same in every run. Under the harness of tests/hostcuda its model of CUB takes CUB's place.
#pragma once
#include "kernels/rows/warp.cuh"
// CUB needs what platform.cuh says of CUDA.
#include <cub/block/block_reduce.cuh>

namespace fnce::cuda {

constexpr int kRowThreads = 128;
constexpr int kRowWarps = kRowThreads / 32;
constexpr int kMostSums = 4;                     // values reduced at once
constexpr int64_t kResultBytes = kMostSums * 8;  // the result, where every thread finds it
constexpr int64_t kReduceBytes = 256;            // of shared memory: that, and what CUB needs

// Values that are reduced at once, each by itself.
template <class T, int kCount>
struct Values {
  T value[kCount];
};

// The shared memory of a block's reductions: kReduceBytes, aligned to 16.
struct BlockReduce {
  unsigned char* memory;
};

// Every thread gets the result. All threads of the block arrive, twice: at CUB's barrier, and once thread 0, to which
// CUB gives the result, has written it for all. The next reduction may follow at once: it writes to CUB's memory what
// nobody reads behind the second barrier, and its result behind a first one, which all pass who have read this.
template <class T, int kCount, class Combine>
FNCE_DEVICE void reduce_block(BlockReduce reduce, T (&values)[kCount], Combine combine) {
  using All = Values<T, kCount>;
  using Reduce = cub::BlockReduce<All, kRowThreads>;
  using Storage = typename Reduce::TempStorage;
  static_assert(sizeof(All) <= kResultBytes && sizeof(Storage) <= kReduceBytes - kResultBytes &&
                alignof(Storage) <= 16);
  All all;
  FNCE_UNROLL for (int v = 0; v < kCount; ++v) all.value[v] = values[v];
  all = Reduce(*reinterpret_cast<Storage*>(reduce.memory + kResultBytes)).Reduce(all, [&](const All& x, const All& y) {
    All both;
    FNCE_UNROLL for (int v = 0; v < kCount; ++v) both.value[v] = combine(x.value[v], y.value[v]);
    return both;
  });
  All* result = reinterpret_cast<All*>(reduce.memory);
  if (threadIdx.x == 0) *result = all;
  __syncthreads();
  FNCE_UNROLL for (int v = 0; v < kCount; ++v) values[v] = result->value[v];
}

template <class T>
FNCE_DEVICE T block_sum(BlockReduce reduce, T value) {
  T values[1] = {value};
  reduce_block(reduce, values, Add());
  return values[0];
}

template <class T>
FNCE_DEVICE T block_max(BlockReduce reduce, T value) {
  T values[1] = {value};
  reduce_block(reduce, values, MaxOrNan());
  return values[0];
}

// Sums over the columns of this thread, c = thread, thread + kRowThreads, ...: terms(c, piece) adds column c to
// `piece`. Pieces are added up on their own, so that rounding errors hardly grow with D.
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
