// How a kernel is loaded and launched, by CUDA's runtime. tests/hostcuda/include has a file of this path, found first
// by whatever runs kernels on the CPU.
#pragma once
#include <cuda_runtime_api.h>
#include <flashnce/flashnce.h>

#include "kernels/contract/kernel.h"

namespace fnce::cuda {

// Throws StatusError FNCE_DEVICE_ERROR that names the kernel, unless code is cudaSuccess.
void check_launch(int code, const char* kernel);

// Loads the kernel and allows its shared memory, so that a launch inside a stream capture finds all done.
template <class Params>
void load(const Kernel<Params>& kernel) {
  const void* function = reinterpret_cast<const void*>(kernel.function);
  cudaFuncAttributes attributes;
  check_launch(cudaFuncGetAttributes(&attributes, function), kernel.name);
  if (kernel.shared_bytes > 48 * 1024)
    check_launch(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(kernel.shared_bytes)),
                 kernel.name);
}

template <class Params>
void launch(const Kernel<Params>& kernel, Grid grid, const Params& params, fnce_stream stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = {grid.x, grid.y, 1};
  config.blockDim = {static_cast<unsigned>(kernel.threads), 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(kernel.shared_bytes);
  config.stream = stream;
  void* arguments[] = {const_cast<Params*>(&params)};
  check_launch(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel.function), arguments), kernel.name);
}

}  // namespace fnce::cuda
