// Equation (10): keys into the ring of the queue, a block per key; then the position, by one thread. Batch columns,
// equation (13), become rows in the same way.
#include "kernels/rows/elements.cuh"
#include "kernels/rows/kernels.h"
#include "kernels/rows/reduce.cuh"
#include "math/norm.h"

namespace fnce::cuda {
namespace {

// The host cannot see a position that lies outside the ring: it is taken modulo K, so that nothing else is written.
FNCE_DEVICE int64_t position_of(const PushParams& p) {
  if (!p.position_in) return 0;
  const int64_t position = *p.position_in % p.k;
  return position < 0 ? position + p.k : position;
}

__global__ void __launch_bounds__(kRowThreads) push_rows(const __grid_constant__ PushParams p) {
  FNCE_DYNAMIC_SHARED(shared);
  BlockReduce reduce = {shared};
  const int64_t position = position_of(p);
  // If there are more keys than rows, the last K stay, where they would have come to lie.
  const int64_t skipped = p.n > p.k ? p.n - p.k : 0;
  for (int64_t i = skipped + blockIdx.x; i < p.n; i += gridDim.x) {
    const int64_t key = i * p.d, row = (position + i) % p.k * p.d;
    float factor = 1.0f;
    if (p.normalize) {
      float squares[1] = {0};
      sum_columns(p.d, squares, [&](int64_t c, float(&piece)[1]) {
        const float x = load_element(p.keys, key + c, p.key_type);
        piece[0] = fma_rn(x, x, piece[0]);
      });
      reduce_block(reduce, squares, Add());
      factor = checked_inverse_norm(sqrt_rn(squares[0]), p.epsilon);
    }
    for (int64_t c = threadIdx.x; c < p.d; c += kRowThreads)
      store_element(load_element(p.keys, key + c, p.key_type) * factor, p.queue, row + c, p.queue_type);
  }
}

__global__ void __launch_bounds__(32) push_position(const __grid_constant__ PushParams p) {
  if (threadIdx.x == 0) *p.position_out = (position_of(p) + p.n) % p.k;
}

}  // namespace

Kernel<PushParams> push_kernel() { return {push_rows, "fnce_push", kRowThreads, kReduceBytes}; }
Kernel<PushParams> push_position_kernel() { return {push_position, "fnce_push_position", 32, 0}; }

}  // namespace fnce::cuda
