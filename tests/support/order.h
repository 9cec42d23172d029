// The order sigma of the randomness contract, rewritten from docs/maths.md: which rows of the queue stand at the end
// of a pass.
#pragma once

#include <cstdint>
#include <vector>

#include "support/problem.h"

namespace support {

// sigma of block `index` of `size` columns at position i.
int64_t sigma_at(uint64_t seed, uint64_t offset, uint64_t index, int64_t size, int64_t i);

// For each row of the queue, whether its mixed negative is made as a row although scores are mixed: the positions
// beyond the last multiple of 16, the length of whole cycles.
std::vector<bool> rows_beyond_cycles(const Case& c);

}  // namespace support
