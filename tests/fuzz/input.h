// A fuzzer's bytes read as numbers. Bytes that have run out are zeros, so every input means something, and every reader
// lets 0 mean the plainest choice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return at_ >= size_; }
  uint8_t byte() { return empty() ? uint8_t{0} : data_[at_++]; }

  template <class T>
  T raw() {
    unsigned char bytes[sizeof(T)];
    for (unsigned char& b : bytes) b = byte();
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }

  // low .. high, of one byte.
  int64_t small(int64_t low, int64_t high) { return low + byte() % (high - low + 1); }
  // True for `of_256` of the values of a byte, never for 0.
  bool rarely(int of_256) { return byte() >= 256 - of_256; }

  template <class T>
  T pick(std::initializer_list<T> from) {
    return from.begin()[byte() % from.size()];
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

// Fast numbers for the content of arrays, from a seed of the input.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x1234567) {}
  uint32_t bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }

 private:
  uint64_t state_;
};

}  // namespace fuzz
