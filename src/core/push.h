// Argument checks of fnce_queue_push and fnce_scale.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>

#include "core/backend.h"

namespace fnce {

// sizeof(fnce_push) of the first version; pinned.
constexpr size_t kFirstPushSize = 88;

fnce_push default_push();
// A checked copy. Throws StatusError.
fnce_push check_push(const fnce_push* push);

ScaleCall check_scale(int32_t device, int32_t device_index, const float* gradient, int64_t rows, int64_t columns,
                      const float* upstream, int64_t upstream_count, int32_t out_type, void* out);

}  // namespace fnce
