// How the kernels of a plan are launched: grids, and the main kernel with the one that may make its pass again.
#pragma once
#include "kernels/contract/kernel.h"
#include "kernels/host/plan.h"

namespace fnce::cuda {

// Each item has a block.
Grid grid_of(int64_t blocks);
// A kernel that walks over its items gets as many blocks as there is work for, `per_block` items each.
Grid walking_grid(int64_t items, int64_t per_block);

// Loads the main kernels of a launch that run_main() may launch.
void load_main(const CudaChoice& choice, const MainLaunch& chosen);
// Runs a pass from the anchors to the partials of the splits.
void run_main(const CudaChoice& choice, const MainLaunch& chosen, MainParams params, fnce_stream stream);

}  // namespace fnce::cuda
