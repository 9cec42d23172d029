// Argument checks of fnce_queue_push and fnce_scale.
#pragma once
#include <flashnce/flashnce.h>

#include "core/backend.h"

namespace fnce {

fnce_push default_push();
// A checked copy. Throws StatusError.
fnce_push check_push(const fnce_push* push);

ScaleCall check_scale(int32_t device, int32_t device_index, const float* gradient, int64_t rows, int64_t columns,
                      const float* upstream, int64_t upstream_count, int32_t out_type, void* out);

}  // namespace fnce
