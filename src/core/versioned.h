// Structs of the C API carry the caller's sizeof. A caller may be older than the library (a shorter struct: the missing
// fields keep their defaults) or newer (a longer one: bytes this library does not know must be zero).
#pragma once
#include "core/status.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fnce {

// A longer struct than any plausible newer version means struct_size was never set.
constexpr size_t kMaxNewerBytes = 4096;

// Checks a caller's struct size; `first_size` is that of the first released version.
inline void check_struct_size(uint64_t size, size_t first_size, size_t known_size, const char* field) {
  if (size < first_size || size > known_size + kMaxNewerBytes)
    invalid(field, to_text(size),
            to_text(uint64_t{first_size}) + " (the first version's) .. " +
                to_text(uint64_t{known_size + kMaxNewerBytes}) + ", as set by the init function");
}

// *_init: writes exactly `size` bytes of the caller's struct.
template <class T>
void init_versioned(T* out, size_t size, T defaults, size_t first_size, const char* name) {
  if (out == nullptr) invalid(name, "NULL", "a pointer to the struct");
  check_struct_size(size, first_size, sizeof(T), "size");
  defaults.struct_size = size;
  std::memset(out, 0, size);
  std::memcpy(out, &defaults, size < sizeof(T) ? size : sizeof(T));
}

// Copies a caller's struct into this library's version of it.
template <class T>
T read_versioned(const T* in, T defaults, size_t first_size, const char* name) {
  if (in == nullptr) invalid(name, "NULL", "a pointer to the struct");
  uint64_t size = 0;
  std::memcpy(&size, in, sizeof size);
  check_struct_size(size, first_size, sizeof(T), (std::string(name) + ".struct_size").c_str());
  const auto* bytes = reinterpret_cast<const unsigned char*>(in);
  for (uint64_t i = sizeof(T); i < size; ++i)
    if (bytes[i] != 0)
      throw StatusError(FNCE_UNSUPPORTED, std::string(name) + " has a non-zero byte at offset " + to_text(i) +
                                              "; this older library knows only the first " +
                                              to_text(uint64_t{sizeof(T)}) + " bytes, the others must be 0");
  std::memcpy(&defaults, in, size < sizeof(T) ? size : sizeof(T));
  defaults.struct_size = sizeof(T);
  return defaults;
}

}  // namespace fnce
