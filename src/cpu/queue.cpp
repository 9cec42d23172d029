#include "cpu/queue.h"

#include "core/threads.h"
#include "core/types.h"
#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "math/norm.h"

namespace fnce::cpu {
namespace {

// Floats worth a second thread: below, waking it costs more.
constexpr int64_t kFloatsPerTask = 1 << 15;

template <class RowBody>
void for_rows(int64_t rows, int64_t columns, RowBody&& body) {
  if (rows == 0 || columns == 0) return;
  const int64_t per_task = kFloatsPerTask / (columns < kFloatsPerTask ? columns : kFloatsPerTask);
  parallel_for(default_threads(), divide_up(rows, per_task), [&](int64_t task, int) {
    const int64_t end = (task + 1) * per_task < rows ? (task + 1) * per_task : rows;
    for (int64_t i = task * per_task; i < end; ++i) body(i);
  });
}

}  // namespace

void queue_push(const fnce_push& push) {
  const Kernels& simd = kernels();
  const int64_t position = *push.position_in;
  // If there are more keys than rows, the last k of them stay, where they would have come to lie.
  const int64_t skipped = push.n > push.k ? push.n - push.k : 0;
  for_rows(push.n - skipped, push.d, [&](int64_t i) {
    const void* key = element_at(push.keys, (skipped + i) * push.d, push.key_type);
    void* row = element_at(push.queue, (position + skipped + i) % push.k * push.d, push.queue_type);
    const float norm = push.normalize ? simd.norm(key, push.key_type, push.d) : 1.0f;
    const float factor = push.normalize ? checked_inverse_norm(norm, push.epsilon) : 1.0f;
    simd.scale_row(key, push.key_type, factor, push.d, row, push.queue_type);
  });
  *push.position_out = (position + push.n) % push.k;
}

void scale(const ScaleCall& call) {
  const Kernels& simd = kernels();
  for_rows(call.rows, call.columns, [&](int64_t i) {
    const int64_t first = i * call.columns;
    simd.scale_row(call.gradient + first, FNCE_FLOAT32, call.upstream[call.per_row ? i : 0], call.columns,
                   element_at(call.out, first, call.out_type), call.out_type);
  });
}

}  // namespace fnce::cpu
