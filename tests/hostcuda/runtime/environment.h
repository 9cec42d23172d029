// Settings that come from the environment. What they do not allow ends the program with a sentence.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace hostcuda {

[[noreturn]] inline void refuse_environment(const char* name, const char* value, const char* allowed) {
  std::fprintf(stderr, "hostcuda: %s is '%s'; it may be %s\n", name, value, allowed);
  std::exit(2);
}

inline uint64_t number_from_environment(const char* name, uint64_t standard) {
  const char* text = std::getenv(name);
  if (!text) return standard;
  char* end = nullptr;
  const uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end) refuse_environment(name, text, "a number");
  return value;
}

}  // namespace hostcuda
