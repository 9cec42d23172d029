// FNCE_CHECK_POINTERS: the driver is asked about every pointer of a call before anything runs.
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/args.h"

namespace fnce::cuda {

struct GivenPointer {
  std::string field;
  const void* pointer;  // null: not given
};

// What a call was given beside its arguments; null where it has no such thing.
struct GivenBeside {
  const void* workspace;
  const fnce_anchors* anchors;
  const void* partial;
  const fnce_score_buffers* out;
};

// All pointers of a call with their fields' names.
std::vector<GivenPointer> pointers_of(const Args& args, const GivenBeside& beside);

std::vector<GivenPointer> pointers_of(const fnce_push& push);

// Throws FNCE_INVALID_ARGUMENT for memory of the host that `device`, the present one, cannot read, and FNCE_DEVICE_MISMATCH for
// memory of another device.
void check_pointers(const std::vector<GivenPointer>& pointers, int32_t device);

}  // namespace fnce::cuda
