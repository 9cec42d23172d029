// kernels/contract/launch.h for the harness: kernels run on the CPU.
#pragma once
#include <flashnce/flashnce.h>

#include "hostcuda/launch.h"
#include "kernels/contract/kernel.h"

namespace fnce::cuda {

// Throws StatusError FNCE_DEVICE_ERROR that names the kernel, unless code is cudaSuccess.
void check_launch(int code, const char* kernel);

template <class Params>
void load(const Kernel<Params>& kernel) {
  check_launch(hostcuda::load(), kernel.name);
}

template <class Params>
void launch(const Kernel<Params>& kernel, Grid grid, const Params& params, fnce_stream stream) {
  check_launch(hostcuda::launch({grid.x, grid.y, 1}, static_cast<unsigned>(kernel.threads),
                                static_cast<size_t>(kernel.shared_bytes), kernel.name, stream,
                                [function = kernel.function, params] { function(params); }),
               kernel.name);
}

}  // namespace fnce::cuda
