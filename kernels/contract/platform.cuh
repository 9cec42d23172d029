// What kernels are written in. cuda.cuh is CUDA as nvcc knows it, or the harness of tests/hostcuda, which runs the same
// source on the CPU. Kernels use what is listed here and the atoms of their family, and nothing else of CUDA:
//   threadIdx blockIdx blockDim gridDim __global__ __device__ __launch_bounds__ __grid_constant__
//   __syncthreads __syncthreads_or __syncwarp __shfl_xor_sync __shfl_sync __any_sync (whole warps only)
//   atomicAdd(unsigned*) atomicOr(unsigned*) __threadfence
//   cub::WarpReduce and cub::BlockReduce, by kernels/rows/warp.cuh and kernels/rows/reduce.cuh
//   FNCE_DYNAMIC_SHARED(name): the block's dynamic shared memory, 128-byte aligned (no static __shared__)
//   FNCE_UNROLL: before loops over registers, which must be unrolled, or arrays would lie in local memory
//   FNCE_NO_UNROLL: before loops whose unrolling would take too many registers
#pragma once
#include <cstdint>

#include "kernels/contract/cuda.cuh"
#include "kernels/contract/params.h"
#include "math/hd.h"

#define FNCE_DEVICE static __device__ __forceinline__
#define FNCE_DEVICE_MEMBER __device__ __forceinline__

namespace fnce::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// A number of the call, wherever it lies.
template <class T>
FNCE_DEVICE T value_of(const Number<T>& number) {
  return number.pointer ? *number.pointer : number.value;
}

}  // namespace fnce::cuda
