// Both directions of a batch of pairs, equation (17). The forward pass makes each score once: a row's softmax runs over
// the columns as in any pass, a column's over the rows of each row block, and these are merged in order. In the
// backward pass both log-sum-exps are known: one pass a side, whose weights have the softmax of either direction.
#pragma once
#include "core/backend.h"
#include "cpu/kernels.h"
#include "cpu/schedule.h"
#include "cpu/tiling.h"

namespace fnce::cpu {

class Symmetric {
 public:
  Symmetric(const Problem& problem, const Kernels& kernels, int threads);

  // Bytes of PairsCall.workspace.
  uint64_t bytes() const { return bytes_; }
  const Tiling& tiling() const { return tiling_; }
  const Schedule& schedule() const { return backward_; }
  void run(const PairsCall& call) const;

 private:
  struct Memory;
  struct Step;

  void prepare(const Step& step) const;
  void number_ids(const Step& step) const;
  void forward(const Step& step) const;
  void write_loss(const Step& step) const;
  void backward(const Step& step) const;
  double set_factors(const Step& step) const;
  void run_side(const Step& step, int side, bool sums) const;
  void write_gradients(const Step& step, double unit) const;

  const Problem problem_, pass_problem_;
  const Kernels& kernels_;
  const TileKernels& tiles_;
  const int threads_;
  const Tiling tiling_;
  const Schedule forward_, backward_;  // forward, a task has all rows of its block
  uint64_t bytes_;
};

}  // namespace fnce::cpu
