// Counts the part of the heap that is in use.
#pragma once

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define FNCE_SOAK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FNCE_SOAK_ASAN 1
#endif
#endif

namespace soak {

#ifdef FNCE_SOAK_ASAN
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Blocks in use; under AddressSanitizer bytes.
int64_t live();

}  // namespace soak
