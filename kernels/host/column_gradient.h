// The gradient of the batch columns, equation (16): the pass with rows and columns changed over. Its queries are the
// batch columns, its columns the anchors, whose bias is log|u_i w_i| - L_i.
#pragma once
#include "core/backend.h"
#include "kernels/host/parameters.h"

namespace fnce::cuda {

class ColumnGradient {
 public:
  // `forward` is the choice for the loss. The kernels are those of `forced` where it serves, unless it is null.
  ColumnGradient(const Problem& problem, const CudaChoice& forward, const DeviceCaps& caps, const Family* forced);

  // Bytes of memory for run().
  uint64_t bytes() const { return bytes_; }
  void load_kernels() const;
  // The workspace of `forward` holds the batch columns as rows of the queue. `anchors` are device memory, with their
  // positives where there is a margin.
  void run(const CudaCall& forward, const fnce_anchors& anchors, const ColumnsCall& columns, void* memory,
           fnce_stream stream) const;

 private:
  struct Memory;

  const Problem problem_;  // the changed one
  const CudaChoice choice_;
  const bool has_margin_;
  const int32_t batch_type_;  // of the batch columns as the forward pass multiplies them
  uint64_t bytes_;
};

}  // namespace fnce::cuda
