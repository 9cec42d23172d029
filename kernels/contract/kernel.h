// A kernel as the host sees it, and how it is launched. Kernels are compiled by nvcc (or, for tests/hostcuda, as C++); whatever
// launches them is ordinary C++ and includes this.
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>

#if defined(FNCE_HOSTCUDA)
#include "hostcuda/launch.h"
#else
#include <cuda_runtime_api.h>
#endif

#include "kernels/contract/params.h"

namespace fnce::cuda {

struct Grid {
  unsigned x = 1, y = 1;
};

// A kernel of one struct of parameters, with what a launch of it needs.
template <class Params>
struct Kernel {
  void (*function)(Params);
  const char* name;
  int threads;
  int64_t shared_bytes;  // dynamic shared memory
};

// Throws StatusError FNCE_DEVICE_ERROR that names the kernel, unless code is cudaSuccess.
void check_launch(int code, const char* kernel);

// Loads the kernel and allows its shared memory, so that a launch inside a stream capture finds all done.
template <class Params>
void load(const Kernel<Params>& kernel) {
#if !defined(FNCE_HOSTCUDA)
  const void* function = reinterpret_cast<const void*>(kernel.function);
  cudaFuncAttributes attributes;
  check_launch(cudaFuncGetAttributes(&attributes, function), kernel.name);
  if (kernel.shared_bytes > 48 * 1024)
    check_launch(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(kernel.shared_bytes)),
                 kernel.name);
#else
  check_launch(hostcuda::load(), kernel.name);
#endif
}

template <class Params>
void launch(const Kernel<Params>& kernel, Grid grid, const Params& params, fnce_stream stream) {
#if !defined(FNCE_HOSTCUDA)
  cudaLaunchConfig_t config = {};
  config.gridDim = {grid.x, grid.y, 1};
  config.blockDim = {static_cast<unsigned>(kernel.threads), 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(kernel.shared_bytes);
  config.stream = stream;
  void* arguments[] = {const_cast<Params*>(&params)};
  check_launch(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel.function), arguments), kernel.name);
#else
  check_launch(hostcuda::launch({grid.x, grid.y, 1}, static_cast<unsigned>(kernel.threads),
                                static_cast<size_t>(kernel.shared_bytes), kernel.name, stream,
                                [function = kernel.function, params] { function(params); }),
               kernel.name);
#endif
}

}  // namespace fnce::cuda
