// Small launches whose right result is known exactly: a matrix product, and a sum over several blocks.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hostcuda/launch.h"
#include "hostcuda/selftest/gemm.h"
#include "math/half.h"

namespace selftest {

// What came of a launch: the kernel's fault if it had one, and whether the results are right.
struct Result {
  int code;
  bool right;
};

// Small integers, so that float32 sums are exact in any order.
inline std::vector<uint16_t> small_integers(size_t count, uint32_t seed) {
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = fnce::float_to_half(static_cast<float>(static_cast<int>(seed >> 24) % 9 - 4));
  }
  return values;
}

template <Bug bug>
Result run_gemm(int m, int n, int k) {
  const auto size = [](int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); };
  const std::vector<uint16_t> a = small_integers(size(m, k), 1), b = small_integers(size(n, k), 2);
  std::vector<float> c(size(m, n), -1.0f);
  const GemmParams params = {a.data(), b.data(), c.data(), m, n, k};
  const auto blocks = [](int rows) { return static_cast<unsigned>((rows + kGemmTile - 1) / kGemmTile); };
  const int code = hostcuda::launch({blocks(n), blocks(m), 1}, kGemmThreads, kGemmShared, "gemm", nullptr,
                                    [params] { gemm<bug>(params); });
  bool right = true;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      float sum = 0.0f;
      for (int l = 0; l < k; ++l)
        sum += fnce::half_to_float(a[size(i, k) + l]) * fnce::half_to_float(b[size(j, k) + l]);
      right = right && c[size(i, n) + j] == sum;
    }
  return {code, right};
}

enum class SumBug {
  kNone,
  kDivergentShuffle,   // one lane stays away
  kNoSyncwarp,         // before a lane reads what another one has written
  kPlainAcrossBlocks,  // every block adds to the same word, without an atomic
  kNoFence,            // before the ticket is drawn
  kTwoWriters,         // of one word, before any barrier
  kDivergentBarrier,   // half a warp goes to a barrier, the others end
  kBarrierAfterExit,   // one thread ends before the others come to a barrier
  kTwoBarriers,        // two halves of the block at two barriers
  kPartialMask,
};

struct SumParams {
  const uint32_t* values;
  int count;
  uint32_t* partial;  // [blocks]
  uint32_t* total;
  uint32_t* ticket;  // 0 before
};
constexpr unsigned kSumThreads = 128, kSumWarps = kSumThreads / 32;
constexpr size_t kSumShared = (kSumWarps + 32) * sizeof(uint32_t);

inline uint32_t warp_sum(uint32_t value) {
  for (int i = 16; i > 0; i /= 2) value += __shfl_xor_sync(0xffffffffu, value, i);
  return value;
}

// Mistakes at the barriers, after which nothing matters.
template <SumBug bug>
void misuse_barriers() {
  if (bug == SumBug::kDivergentBarrier && threadIdx.x % 32 < 16) __syncthreads();
  if (bug == SumBug::kBarrierAfterExit && threadIdx.x != 5) __syncthreads();
  if (bug == SumBug::kTwoBarriers) {
    if (threadIdx.x < 64)
      __syncthreads();
    else
      __syncthreads();
  }
  if (bug == SumBug::kPartialMask && threadIdx.x < 16) __shfl_xor_sync(0xffffu, 1, 1);
}

// The sum of all values: in warps, in blocks, and by the last block over all blocks.
template <SumBug bug>
void sum(SumParams p) {
  uint32_t* const of_warps = reinterpret_cast<uint32_t*>(hostcuda::dynamic_shared());
  uint32_t* const scratch = of_warps + kSumWarps;
  const unsigned t = threadIdx.x, lane = t % 32;
  if (bug == SumBug::kTwoWriters) *p.total = t;
  uint32_t value = 0;
  for (int i = static_cast<int>(blockIdx.x * kSumThreads + t); i < p.count;
       i += static_cast<int>(gridDim.x * kSumThreads))
    value += p.values[i];
  if (bug != SumBug::kDivergentShuffle || t != 37) value = warp_sum(value);
  if (bug >= SumBug::kDivergentBarrier) return misuse_barriers<bug>();
  if (lane == 0) of_warps[t / 32] = value;
  __syncthreads();
  if (t >= 32) return;
  scratch[lane] = lane < kSumWarps ? of_warps[lane] : 0;
  if (bug != SumBug::kNoSyncwarp) __syncwarp();
  value = warp_sum(scratch[31 - lane]);
  unsigned drawn = 0;
  if (lane == 0) {
    p.partial[blockIdx.x] = value;
    if (bug == SumBug::kPlainAcrossBlocks) *p.total += value;
    if (bug != SumBug::kNoFence) __threadfence();
    drawn = atomicAdd(p.ticket, 1u);
  }
  if (__shfl_sync(0xffffffffu, drawn, 0) != gridDim.x - 1) return;
  if (lane == 0 && bug != SumBug::kPlainAcrossBlocks) {
    *p.total = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) *p.total += p.partial[i];
  }
}

template <SumBug bug>
Result run_sum(int count, unsigned blocks) {
  std::vector<uint32_t> values(static_cast<size_t>(count)), partial(blocks);
  uint32_t expected = 0, total = 0, ticket = 0;
  for (size_t i = 0; i < values.size(); ++i) expected += values[i] = static_cast<uint32_t>(i * i);
  const SumParams params = {values.data(), count, partial.data(), &total, &ticket};
  const int code =
      hostcuda::launch({blocks, 1, 1}, kSumThreads, kSumShared, "sum", nullptr, [params] { sum<bug>(params); });
  return {code, total == expected && ticket == blocks};
}

}  // namespace selftest
