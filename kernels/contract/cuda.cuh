// The words of CUDA that kernels are written in, as nvcc knows them. tests/hostcuda/include has a file of this path,
// found first by whatever compiles kernels for the CPU; platform.cuh says what both must offer.
#pragma once
#include <cuda_runtime.h>

#define FNCE_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define FNCE_UNROLL _Pragma("unroll")
#define FNCE_NO_UNROLL _Pragma("unroll 1")
