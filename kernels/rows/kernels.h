// The kernels that both families share, for the host. `d` chooses whether rows live in shared memory (kSharedFeatures).
#pragma once
#include "kernels/contract/kernel.h"

namespace fnce::cuda {

Kernel<PrepParams> prep_kernel(int64_t d);
Kernel<PackParams> pack_kernel(int64_t d);
Kernel<PremixParams> premix_kernel();
Kernel<CheckPermutationParams> check_permutation_kernel();
Kernel<MergeParams> merge_kernel();
Kernel<FinishParams> finish_kernel(int64_t d);
Kernel<FinishScoresParams> finish_scores_kernel();
Kernel<UpstreamParams> upstream_kernel();
Kernel<ColumnSumsParams> column_sums_kernel();
Kernel<ColumnGradientParams> column_gradient_kernel();
Kernel<PushParams> push_kernel();
Kernel<PushParams> push_position_kernel();  // writes position_out, after push_kernel in the stream
Kernel<ScaleParams> scale_kernel();

// Grids. A table block fills any number of entries: more blocks only make it faster.
constexpr int64_t kTableBlockSize = 1024;  // entries per table block, about
constexpr int32_t kMaxTableBlocks = 512;
constexpr int32_t table_blocks_for(int64_t k) {
  const int64_t blocks = (k + kTableBlockSize - 1) / kTableBlockSize;
  return static_cast<int32_t>(blocks < kMaxTableBlocks ? blocks : kMaxTableBlocks);
}
constexpr unsigned kRowKernelBlocks = 4096;  // premix, push, scale: blocks of a grid-stride loop over rows, at most

}  // namespace fnce::cuda
