#include "core/push.h"

#include "core/args.h"
#include "core/limits.h"
#include "core/status.h"
#include "core/types.h"
#include "core/versioned.h"

namespace fnce {
namespace {

static_assert(sizeof(fnce_push) >= kFirstPushSize);

void check_device(const char* field, int32_t device, const char* index_field, int32_t index) {
  if (device != FNCE_CPU && device != FNCE_CUDA)
    invalid(field, to_text(int64_t{device}), "FNCE_CPU (1), FNCE_CUDA (2)");
  check_range(index_field, index, 0, device == FNCE_CPU ? 0 : 1023);
}

void check_type(const char* field, int32_t type) {
  if (type < FNCE_FLOAT32 || type > FNCE_BFLOAT16)
    invalid(field, to_text(int64_t{type}), "FNCE_FLOAT32 (1), FNCE_FLOAT16 (2), FNCE_BFLOAT16 (3)");
}

}  // namespace

fnce_push default_push() {
  fnce_push push = {};
  push.struct_size = sizeof push;
  push.device = FNCE_CPU;
  push.key_type = push.queue_type = FNCE_FLOAT32;
  push.normalize = 1;
  push.epsilon = 1e-12f;
  return push;
}

fnce_push check_push(const fnce_push* push) {
  const fnce_push p = read_versioned(push, default_push(), kFirstPushSize, "push");
  check_range("push.n", p.n, 0, kMaxRows);
  check_range("push.k", p.k, 1, kMaxRows);
  check_range("push.d", p.d, 1, kMaxFeatures);
  check_device("push.device", p.device, "push.device_index", p.device_index);
  check_type("push.key_type", p.key_type);
  check_type("push.queue_type", p.queue_type);
  check_range("push.normalize", p.normalize, 0, 1);
  check_epsilon(p.epsilon, "push.epsilon");
  if (p.checks & ~FNCE_CHECK_POINTERS)
    invalid("push.checks", to_text(int64_t{p.checks}), "FNCE_CHECK_POINTERS (2) or 0");
  check_range("push.reserved", p.reserved, 0, 0);
  if (p.n > 0) require_pointer(p.keys, alignment_of(p.key_type), "push.keys", "device memory of [n,d] keys");
  require_pointer(p.queue, alignment_of(p.queue_type), "push.queue", "device memory of [k,d] rows");
  require_pointer(p.position_in, 8, "push.position_in", "device memory of one int64");
  require_pointer(p.position_out, 8, "push.position_out", "device memory of one int64");
  if (p.device == FNCE_CPU) check_range("push.*position_in", *p.position_in, 0, p.k - 1);
  return p;
}

ScaleCall check_scale(int32_t device, int32_t device_index, const float* gradient, int64_t rows, int64_t columns,
                      const float* upstream, int64_t upstream_count, int32_t out_type, void* out) {
  check_device("device", device, "device_index", device_index);
  check_range("rows", rows, 0, kMaxRows);
  check_range("columns", columns, 0, int64_t{1} << 31);
  if (upstream_count != 1 && upstream_count != rows)
    invalid("upstream_count", to_text(upstream_count), "1 or rows (" + to_text(rows) + ")");
  check_type("out_type", out_type);
  if (rows > 0 && columns > 0) {
    require_pointer(gradient, 4, "gradient", "device memory of [rows,columns] float32");
    require_pointer(upstream, 4, "upstream", "device memory of upstream_count float32");
    require_pointer(out, alignment_of(out_type), "out", "device memory of [rows,columns]");
    if (out == gradient) invalid("out", "gradient", "other memory: the call is out of place");
  }
  return {device_index, gradient, rows, columns, upstream, upstream_count != 1, out_type, out};
}

}  // namespace fnce
