// Cases with columns beyond the queue, equations (13)-(16), for the tests of these.
#pragma once

#include <cstdint>

#include "support/problem.h"

namespace support {

struct Beyond {
  bool ids = false, bias = false, margin = false, decoupled = false;
};

// Sizes of a case: queries, rows of the queue, batch columns, features.
struct Shape {
  int64_t n, k, c, d;
};

// A case of the preset with what `options` declares, everything but the statistics asked for, and inputs. It has no
// reduction.
Case beyond_case(const Shape& shape, uint64_t seed, const Beyond& options = {}, int32_t preset = FNCE_PRESET_MOCO);

// Fills the inputs of a case that has been changed, as beyond_case does. Throws std::runtime_error if there is no
// margin that rounding keeps away from.
void fill_beyond(Case& c, uint64_t seed);

}  // namespace support
