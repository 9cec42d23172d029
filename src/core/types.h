// Element types of arrays in memory, FNCE_FLOAT32 | FNCE_FLOAT16 | FNCE_BFLOAT16.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>

namespace fnce {

constexpr int64_t element_size(int32_t type) { return type == FNCE_FLOAT32 ? 4 : 2; }

constexpr size_t alignment_of(int32_t type) { return static_cast<size_t>(element_size(type)); }

constexpr const char* type_name(int32_t type) {
  return type == FNCE_FLOAT32 ? "float32" : type == FNCE_FLOAT16 ? "float16" : "bfloat16";
}

// The element at `index` of an array. Always inlined: objects of several instruction sets use it (math/hd.h).
[[gnu::always_inline]] inline const void* element_at(const void* array, int64_t index, int32_t type) {
  return static_cast<const unsigned char*>(array) + index * element_size(type);
}
[[gnu::always_inline]] inline void* element_at(void* array, int64_t index, int32_t type) {
  return static_cast<unsigned char*>(array) + index * element_size(type);
}

}  // namespace fnce
