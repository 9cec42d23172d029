// FNCE_CHECK_POINTERS: the driver is asked about every pointer of a call before anything runs.
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/args.h"
#include "core/backend.h"

namespace fnce::cuda {

struct GivenPointer {
  std::string field;
  const void* pointer;  // null: not given
};

// Pointers of a call that are not among its arguments; null where it has no such thing.
struct OtherPointers {
  const void* workspace = nullptr;
  const fnce_anchors* anchors = nullptr;
  const void* partial = nullptr;
  const fnce_score_buffers* out = nullptr;
  const ColumnsCall* columns = nullptr;
};

// All pointers of a call with their fields' names.
std::vector<GivenPointer> pointers_of(const Args& args, const OtherPointers& others);

std::vector<GivenPointer> pointers_of(const fnce_push& push);

// Throws FNCE_INVALID_ARGUMENT for memory of the host that `device`, the present one, cannot read, and
// FNCE_DEVICE_MISMATCH for memory of another device.
void check_pointers(const std::vector<GivenPointer>& pointers, int32_t device);

}  // namespace fnce::cuda
