#include "kernels/host/pass.h"

#include <algorithm>

#include "kernels/contract/launch.h"
#include "kernels/rows/kernels.h"

namespace fnce::cuda {

Grid grid_of(int64_t blocks) { return {static_cast<unsigned>(blocks)}; }

Grid walking_grid(int64_t items, int64_t per_block) {
  return grid_of(std::min<int64_t>((items + per_block - 1) / per_block, kRowKernelBlocks));
}

void load_main(const CudaChoice& choice, const MainLaunch& chosen) {
  load(chosen.kernel());
  if (choice.may_fall_back()) load(choice.fallback.kernel());
}

void run_main(const CudaChoice& choice, const MainLaunch& chosen, MainParams params, fnce_stream stream) {
  const auto splits = static_cast<unsigned>(chosen.splits);
  launch(chosen.kernel(), {static_cast<unsigned>(chosen.row_blocks), splits}, params, stream);
  if (!choice.may_fall_back()) return;
  // The device decides: the kernel returns at once where float16 holds the queue.
  params.only_if_out_of_range = 1;
  launch(choice.fallback.kernel(), {static_cast<unsigned>(choice.fallback.row_blocks), splits}, params, stream);
}

}  // namespace fnce::cuda
