// What kernels are written in: CUDA as nvcc knows it, or, with FNCE_HOSTCUDA, the harness of tests/hostcuda that runs the same
// source on the CPU. Kernels use what is listed here and the atoms of their family, and nothing else of CUDA:
//   threadIdx blockIdx blockDim gridDim __global__ __device__ __launch_bounds__ __grid_constant__
//   __syncthreads __syncthreads_or __syncwarp __shfl_xor_sync __shfl_sync __any_sync (whole warps only)
//   atomicAdd(unsigned*) atomicOr(unsigned*) __threadfence
//   cub::WarpReduce and cub::BlockReduce, by kernels/rows/warp.cuh and kernels/rows/reduce.cuh
//   FNCE_DYNAMIC_SHARED(name): the block's dynamic shared memory, 128-byte aligned (no static __shared__)
#pragma once
#include <cstdint>

#if defined(FNCE_HOSTCUDA)
#include "hostcuda/device.h"
#define FNCE_DYNAMIC_SHARED(name) unsigned char* const name = hostcuda::dynamic_shared()
#else
#include <cuda_runtime.h>
#define FNCE_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif

#define FNCE_DEVICE static __device__ __forceinline__
#define FNCE_DEVICE_MEMBER __device__ __forceinline__

// Loops over registers: they must be unrolled, or arrays would lie in local memory.
#if defined(__CUDACC__)
#define FNCE_UNROLL _Pragma("unroll")
#define FNCE_NO_UNROLL _Pragma("unroll 1")
#else
#define FNCE_UNROLL
#define FNCE_NO_UNROLL
#endif

#include "kernels/contract/params.h"
#include "math/hd.h"

namespace fnce::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// A number of the call, wherever it lies.
template <class T>
FNCE_DEVICE T value_of(const Number<T>& number) {
  return number.pointer ? *number.pointer : number.value;
}

}  // namespace fnce::cuda
