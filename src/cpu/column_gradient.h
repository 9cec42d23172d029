// The gradient of the batch columns, equation (16): a pass in which rows and columns have changed places. Its rows are
// the batch columns, its columns the anchors, whose bias is log|u_i w_i| - L_i. So the weights of its softmax, times
// exp(m), are the P_ij times what comes from above, and its sums are the gradient.
#pragma once
#include "core/backend.h"
#include "cpu/rows.h"

namespace fnce::cpu {

class ColumnGradient {
 public:
  ColumnGradient(const Problem& problem, const Kernels& kernels, int threads);

  // Bytes of memory for run().
  uint64_t bytes() const { return bytes_; }
  // `forward` is the call as fnce_loss makes it, with `anchors` and batch columns already prepared.
  void run(const CpuCall& forward, const fnce_anchors& anchors, const ColumnsCall& columns, void* memory) const;

 private:
  struct Memory;

  const Problem problem_;  // the changed one
  const Kernels& kernels_;
  const TileKernels& tiles_;
  const int threads_;
  const Tiling tiling_;
  const Schedule schedule_;
  uint64_t bytes_;
};

}  // namespace fnce::cpu
