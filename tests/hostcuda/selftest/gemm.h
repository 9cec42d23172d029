// C[M,N] = A[M,K] B[N,K]^T in float16 with float32 sums, as the sm80 family multiplies: 64x64 tiles, 4 warps of 32x32,
// two stages of cp.async, swizzled shared memory. A mistake can be planted.
#pragma once
#include <cstdint>

#include "hostcuda/atoms_model.h"

namespace selftest {

enum class Bug {
  kNone,
  kNoBarrierBeforeReading,  // of a tile that other threads have copied
  kNoBarrierAfterReading,   // of a tile that is about to be overwritten
  kWaitsForTooFewGroups,
  kCopiesOutOfBounds,
  kReadsOutOfBounds,
};

struct GemmParams {
  const uint16_t *a, *b;
  float* c;
  int m, n, k;  // k is a multiple of kGemmDepth
};
constexpr int kGemmTile = 64, kGemmDepth = 32, kGemmThreads = 128;
constexpr int kStageElements = kGemmTile * kGemmDepth;
constexpr size_t kGemmShared = 2 * 2 * kStageElements * sizeof(uint16_t);

// Element offset of an 8-element chunk in a tile of 32 columns.
inline int chunk_offset(int row, int chunk) { return row * kGemmDepth + (chunk ^ (row / 2 & 3)) * 8; }

template <Bug bug>
void gemm_load(const GemmParams& p, uint16_t* a, uint16_t* b, int stage, int k0) {
  const int m0 = static_cast<int>(blockIdx.y) * kGemmTile, n0 = static_cast<int>(blockIdx.x) * kGemmTile;
  for (int i = 0; i < 2; ++i) {
    const int piece = static_cast<int>(threadIdx.x) + i * kGemmThreads, row = piece / 4, chunk = piece % 4;
    const bool a_valid = m0 + row < p.m, b_valid = n0 + row < p.n;
    const int64_t a_row = a_valid ? m0 + row : 0, b_row = b_valid ? n0 + row : 0;
    const int b_to = bug == Bug::kCopiesOutOfBounds && row == kGemmTile - 1 ? kGemmTile : row;
    hostcuda::cp_async_16(a + stage * kStageElements + chunk_offset(row, chunk), p.a + a_row * p.k + k0 + chunk * 8,
                          a_valid);
    hostcuda::cp_async_16(b + stage * kStageElements + chunk_offset(b_to, chunk), p.b + b_row * p.k + k0 + chunk * 8,
                          b_valid);
  }
  hostcuda::cp_async_commit();
}

inline void gemm_multiply(float (&c)[2][4][4], const uint16_t* a, const uint16_t* b) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int m = warp / 2 * 32, n = warp % 2 * 32;
  for (int k = 0; k < 2; ++k) {
    uint32_t fa[2][4], fb[2][4];
    for (int i = 0; i < 2; ++i)
      hostcuda::ldmatrix_x4(fa[i], a + chunk_offset(m + i * 16 + lane % 16, k * 2 + lane / 16));
    for (int j = 0; j < 2; ++j)
      hostcuda::ldmatrix_x4(fb[j], b + chunk_offset(n + j * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 4; ++j)
        hostcuda::mma_m16n8k16_f16(c[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
  }
}

template <Bug bug>
void gemm(GemmParams p) {
  uint16_t* a = reinterpret_cast<uint16_t*>(hostcuda::dynamic_shared());
  uint16_t* b = a + 2 * kStageElements;
  float c[2][4][4] = {};
  const int steps = p.k / kGemmDepth;
  gemm_load<bug>(p, a, b, 0, 0);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % 2;
    const bool more = step + 1 < steps;
    if (more) gemm_load<bug>(p, a, b, 1 - stage, (step + 1) * kGemmDepth);
    hostcuda::cp_async_wait((more ? 1 : 0) + (bug == Bug::kWaitsForTooFewGroups ? 1 : 0));
    if (bug != Bug::kNoBarrierBeforeReading) __syncthreads();
    gemm_multiply(c, a + stage * kStageElements, b + stage * kStageElements);
    if (bug != Bug::kNoBarrierAfterReading) __syncthreads();
  }
  if (bug == Bug::kReadsOutOfBounds && threadIdx.x == kGemmThreads - 1 && b[2 * kStageElements + 4] == 1)
    c[0][0][0] = 0.0f;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 4; ++j)
      for (int r = 0; r < 4; ++r) {
        const int m = static_cast<int>(blockIdx.y) * kGemmTile + warp / 2 * 32 + i * 16 + lane / 4 + r / 2 * 8;
        const int n = static_cast<int>(blockIdx.x) * kGemmTile + warp % 2 * 32 + j * 8 + lane % 4 * 2 + r % 2;
        if (m < p.m && n < p.n) p.c[int64_t{m} * p.n + n] = c[i][j][r];
      }
}

}  // namespace selftest
