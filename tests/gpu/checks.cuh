// The check kernels. Compiled twice, by nvcc for the device and by g++ for the harness of tests/hostcuda, each in a
// namespace of its own, which the includer names by FNCE_CONFORMANCE_SIDE, so that both live in one program. Every
// instruction is reached through kernels/engines/sm80/atoms.cuh.
#pragma once
#include "gpu/draws.h"
#include "gpu/jobs.h"
#include "kernels/contract/platform.cuh"
#include "kernels/engines/sm80/atoms.cuh"
#include "kernels/rows/reduce.cuh"
#include "math/half.h"

namespace fnce::conformance::FNCE_CONFORMANCE_SIDE {

using namespace fnce::cuda::sm80;
using fnce::cuda::exp2_approx;

// needs_sm80 of jobs.h: compiled for an older architecture these kernels do nothing, and are not launched.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kHasSm80 = false;
#else
constexpr bool kHasSm80 = true;
#endif

constexpr int kCopyBytes = 1024;   // kCpAsync: 64 pieces of 16 bytes
constexpr int kMatrixBytes = 512;  // ldmatrix: 4 matrices of 8 rows of 16 bytes

// 64 pieces in two groups, permuted on the way, every third one zero filled over a pattern. Out: the image of shared
// memory, then what each thread saw of its own first piece when only the first group was waited for.
__global__ void __launch_bounds__(32) copies(const __grid_constant__ Params p) {
  if constexpr (!kHasSm80) return;
  FNCE_DYNAMIC_SHARED(shared);
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t* words = reinterpret_cast<uint32_t*>(shared);
  for (int i = lane; i < kCopyBytes / 4; i += 32) words[i] = 0xEEEEEEEEu;
  __syncwarp();
  for (int group = 0; group < 2; ++group) {
    const int piece = lane + 32 * group;
    cp_async_16(shared + (piece ^ 5) * 16, p.x + piece * 7 % 64 * 4, piece % 3 != 0);
    cp_async_commit();
  }
  cp_async_wait<1>();
  p.out[kCopyBytes / 4 + lane] = words[(lane ^ 5) * 4];
  cp_async_wait<0>();
  __syncwarp();
  for (int i = lane; i < kCopyBytes / 4; i += 32) p.out[i] = words[i];
}

// Scattered rows: every lane's address must count.
template <bool kTrans>
__global__ void __launch_bounds__(32) matrices(const __grid_constant__ Params p) {
  if constexpr (!kHasSm80) return;
  FNCE_DYNAMIC_SHARED(shared);
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t* words = reinterpret_cast<uint32_t*>(shared);
  for (int i = lane; i < kMatrixBytes / 4; i += 32) words[i] = p.x[i];
  __syncwarp();
  uint32_t r[4];
  const void* row = shared + (lane * 5 + 3) % 32 * 16;
  if constexpr (kTrans)
    ldmatrix_x4_trans(r, row);
  else
    ldmatrix_x4(r, row);
  for (int i = 0; i < 4; ++i) p.out[lane * 4 + i] = r[i];
}

FNCE_DEVICE void load_fragments(uint32_t (&a)[4], uint32_t (&b)[2], const uint32_t* x, const uint32_t* y, int lane,
                                uint32_t depth, uint32_t k) {
  const uint32_t row = static_cast<uint32_t>(lane) / 4, column = k + static_cast<uint32_t>(lane) % 4 * 2;
  for (uint32_t i = 0; i < 4; ++i) a[i] = x[((row + i % 2 * 8) * depth + column + i / 2 * 8) / 2];
  for (uint32_t i = 0; i < 2; ++i) b[i] = y[(row * depth + column + i * 8) / 2];
}

// One warp a tile: C[16][8] += A[16][depth] B[8][depth]^T, 16 columns at a time. x: the tiles' A, 16-bit (kHalfSplit:
// the upper and then the lower parts of A); y: B likewise, and at the end, as floats, the C that all tiles start from.
__global__ void __launch_bounds__(32) products(const __grid_constant__ Params p) {
  if constexpr (!kHasSm80) return;
  const int lane = static_cast<int>(threadIdx.x);
  const ProductMode mode = static_cast<ProductMode>(p.mode);
  const uint32_t planes = mode == ProductMode::kHalfSplit ? 2 : 1, depth = p.each;
  const uint32_t *x = p.x + blockIdx.x * planes * 8 * depth, *y = p.y + blockIdx.x * planes * 4 * depth;
  const uint32_t* start = p.y + p.count * planes * 4 * depth;
  float d[4];
  for (int i = 0; i < 4; ++i) d[i] = bits_float(start[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2]);
  for (uint32_t k = 0; k < depth; k += 16) {
    uint32_t a[4], b[2];
    load_fragments(a, b, x, y, lane, depth, k);
    if (mode == ProductMode::kHalfSplit) {
      uint32_t a_low[4], b_low[2];
      load_fragments(a_low, b_low, x + 8 * depth, y + 4 * depth, lane, depth, k);
      mma_f16(d, a, b_low[0], b_low[1]);
      mma_f16(d, a_low, b[0], b[1]);
    }
    if (mode == ProductMode::kBfloat)
      mma_bf16(d, a, b[0], b[1]);
    else
      mma_f16(d, a, b[0], b[1]);
  }
  for (int i = 0; i < 4; ++i) p.out[blockIdx.x * 128 + lane * 4 + i] = float_bits(d[i]);
}

FNCE_DEVICE void map_word(const Params& p, uint32_t i) {
  const float value = bits_float(p.x[i]);
  switch (static_cast<MapMode>(p.mode)) {
    case MapMode::kExp2: p.out[i] = float_bits(exp2_approx(value)); break;
    case MapMode::kPackHalf:
      if constexpr (kHasSm80) p.out[i] = pack_f16(value, bits_float(p.x[p.count - 1 - i]));
      break;
    case MapMode::kPackBfloat:
      if constexpr (kHasSm80) p.out[i] = pack_bf16(value, bits_float(p.x[p.count - 1 - i]));
      break;
    case MapMode::kUnpackHalf:
      p.out[2 * i] = float_bits(low_f16(p.x[i]));
      p.out[2 * i + 1] = float_bits(high_f16(p.x[i]));
      break;
    case MapMode::kToHalf: p.out[i] = float_to_half(value); break;
    case MapMode::kFromHalf: p.out[i] = float_bits(half_to_float(static_cast<uint16_t>(p.x[i]))); break;
    case MapMode::kToBfloat: p.out[i] = float_to_bfloat(value); break;
    case MapMode::kFromBfloat: p.out[i] = float_bits(bfloat_to_float(static_cast<uint16_t>(p.x[i]))); break;
  }
}

__global__ void __launch_bounds__(128) map_words(const __grid_constant__ Params p) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += gridDim.x * blockDim.x) map_word(p, i);
}

__global__ void __launch_bounds__(128) draws(const __grid_constant__ Params p) {
  for (uint32_t t = blockIdx.x * blockDim.x + threadIdx.x; t < p.count; t += gridDim.x * blockDim.x)
    p.out[t] = draw_checksum(p, t);
}

// A warp's 32 words of x, as floats and as spans.
__global__ void __launch_bounds__(32) warp_reductions(const __grid_constant__ Params p) {
  const uint32_t word = p.x[blockIdx.x * 32 + threadIdx.x];
  const float sum = cuda::reduce_to_lane_0(bits_float(word), cuda::Add());
  const Span span = cuda::reduce_to_lane_0(span_of(word), [](const Span& x, const Span& y) { return joined(x, y); });
  if (threadIdx.x != 0) return;
  const uint32_t results[kWarpWords] = {float_bits(sum), span.first,  span.last, span.count,
                                        span.twice,      span.thrice, span.hash};
  for (uint32_t i = 0; i < kWarpWords; ++i) p.out[blockIdx.x * kWarpWords + i] = results[i];
}

// Reduces a block's words of x, one reduction at once after the other: sums of x, -x and 1 / x, the largest, or NaN if
// there is one, and the sum as doubles.
__global__ void __launch_bounds__(cuda::kRowThreads) block_reductions(const __grid_constant__ Params p) {
  FNCE_DYNAMIC_SHARED(shared);
  cuda::BlockReduce reduce = {shared};
  const uint32_t thread = blockIdx.x * cuda::kRowThreads + threadIdx.x;
  const float x = bits_float(p.x[thread]);
  float sums[] = {x, -x, 1 / x};
  cuda::reduce_block(reduce, sums, cuda::Add());
  const float largest = cuda::block_max(reduce, x);
  const double sum = cuda::block_sum(reduce, static_cast<double>(x));
  const uint32_t results[kBlockWords] = {float_bits(sums[0]), float_bits(sums[1]), float_bits(sums[2]),
                                         float_bits(largest), float_bits(static_cast<float>(sum))};
  for (uint32_t i = 0; i < kBlockWords; ++i) p.out[thread * kBlockWords + i] = results[i];
}

// Where each thread of a grid of kPlaceBlocks x kPlaceBlocks blocks is.
__global__ void __launch_bounds__(kPlaceThreads) places(const __grid_constant__ Params p) {
  const uint2 block = block_read_again();
  const uint32_t thread = static_cast<uint32_t>(thread_read_again());
  const uint32_t at = (blockIdx.y * kPlaceBlocks + blockIdx.x) * kPlaceThreads + threadIdx.x;
  p.out[at] = block.x << 24 | block.y << 16 | thread;
}

// A thread's share of all 2^32 floats: how many of them the header rounds to something else than the instruction.
__global__ void __launch_bounds__(128) sweep(const __grid_constant__ Params p) {
  if constexpr (!kHasSm80) return;
  const bool half = static_cast<SweepMode>(p.mode) == SweepMode::kHalf;
  const uint32_t each = static_cast<uint32_t>((uint64_t{1} << 32) / p.count), nan = half ? 0x7c00u : 0x7f80u;
  for (uint32_t t = blockIdx.x * blockDim.x + threadIdx.x; t < p.count; t += gridDim.x * blockDim.x) {
    uint32_t different = 0;
    for (uint32_t s = 0; s < each; ++s) {
      const float value = bits_float(t * each + s);
      const uint32_t header = half ? float_to_half(value) : float_to_bfloat(value);
      const uint32_t hardware = (half ? pack_f16(value, 0.0f) : pack_bf16(value, 0.0f)) & 0xffffu;
      const bool both_nan = (header & 0x7fffu) > nan && (hardware & 0x7fffu) > nan;
      if (header != hardware && !both_nan) ++different;
    }
    p.out[t] = different;
  }
}

struct Blocks {
  unsigned x, y = 1;
};

// The same launches on both sides: go(kernel, name, blocks, threads, bytes of shared memory).
template <class Go>
void dispatch(const Job& job, Go&& go) {
  const Params& p = job.params;
  const Blocks blocks = {p.count < 128 * 1024 ? (p.count + 127) / 128 : 1024}, one = {1}, counted = {p.count};
  switch (job.check) {
    case Check::kCpAsync: return go(copies, "copies", one, 32u, kCopyBytes);
    case Check::kLdmatrix: return go(matrices<false>, "matrices", one, 32u, kMatrixBytes);
    case Check::kLdmatrixTrans: return go(matrices<true>, "matrices", one, 32u, kMatrixBytes);
    case Check::kProducts: return go(products, "products", counted, 32u, 0);
    case Check::kMap: return go(map_words, "map_words", blocks, 128u, 0);
    case Check::kDraws: return go(draws, "draws", blocks, 128u, 0);
    case Check::kReduceWarps: return go(warp_reductions, "warp_reductions", counted, 32u, 0);
    case Check::kReduceBlocks:
      return go(block_reductions, "block_reductions", counted, unsigned{cuda::kRowThreads},
                static_cast<int>(cuda::kReduceBytes));
    case Check::kPlaces: return go(places, "places", Blocks{kPlaceBlocks, kPlaceBlocks}, kPlaceThreads, 0);
    case Check::kSweep: return go(sweep, "sweep", blocks, 128u, 0);
  }
}

}  // namespace fnce::conformance::FNCE_CONFORMANCE_SIDE
