// The main kernels of the sm80 family, for the host. Grid: x = row blocks, y = splits.
#pragma once
#include "kernels/contract/kernel.h"
#include "kernels/engines/sm80/tile.h"

namespace fnce::cuda::sm80 {

// `tile` is an index of tiles_of(operand).
Kernel<MainParams> main_kernel(Operand operand, int tile, Variant variant);

}  // namespace fnce::cuda::sm80
