// The sizes the library takes, for all checks.
#pragma once
#include <cstdint>

namespace fnce {

constexpr int64_t kMaxRows = 2147483647;   // permutation indices are 31 bits: 32-bit multiplies suffice
constexpr int64_t kMaxFeatures = 1 << 20;  // row_offset * features stays inside the 56 bits of a draw's index
constexpr int64_t kMaxRowOffset = int64_t{1} << 32;
constexpr int32_t kMaxThreads = 1024;

}  // namespace fnce
