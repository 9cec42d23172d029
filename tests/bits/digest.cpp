// The mixing step is that of SplitMix64: every bit of a word reaches every bit of the digest.
#include "bits/digest.h"

#include <bit>
#include <cmath>
#include <cstdio>

namespace bits {

void Digest::add(uint64_t word) {
  uint64_t x = (state_ ^ word) + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  state_ = x ^ (x >> 31);
}

void Digest::add(float value) { add(uint64_t{std::isnan(value) ? 0x7fc00000u : std::bit_cast<uint32_t>(value)}); }

void Digest::add(const std::vector<float>& values) {
  for (const float value : values) add(value);
}

void Digest::add(const std::vector<int64_t>& values) {
  for (const int64_t value : values) add(static_cast<uint64_t>(value));
}

std::string Digest::hex() const {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(state_));
  return text;
}

}  // namespace bits
