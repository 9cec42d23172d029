// Which sanitizers this build has.
#pragma once

#if !defined(__has_feature)
#define __has_feature(name) 0
#endif

namespace selftest {

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
constexpr bool kAsan = true;
#else
constexpr bool kAsan = false;
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
constexpr bool kTsan = true;
#else
constexpr bool kTsan = false;
#endif

}  // namespace selftest
