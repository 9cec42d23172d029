// kernels/contract/cuda.cuh for the harness: CUDA as far as kernels use it, in C++.
#pragma once
#include "hostcuda/device.h"

#define FNCE_DYNAMIC_SHARED(name) unsigned char* const name = hostcuda::dynamic_shared()
#define FNCE_UNROLL
#define FNCE_NO_UNROLL
