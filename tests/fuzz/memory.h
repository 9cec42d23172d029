// Memory that a call under test may read or write, and the end of a run that finds a broken promise. Around every block
// lie guard zones: poisoned under AddressSanitizer, so that one byte too far ends the program at once, and compared
// otherwise. A block of inputs also knows its content: a call that changes it is found out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "flashnce/flashnce.h"

namespace fuzz {

// Prints the sentence and ends the program as a finding.
[[noreturn]] void broken(const std::string& what);
inline void require(bool holds, const char* what) {
  if (!holds) broken(what);
}

class Block {
 public:
  enum Kind { kInput, kOutput };

  // `skew`: bytes past an address aligned to FNCE_ALIGNMENT.
  Block(size_t bytes, Kind kind, size_t skew = 0);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  size_t size() const { return size_; }
  unsigned char* bytes() const { return payload_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(payload_);
  }

  // The content from here on: what an input must keep, and what an output must keep where a call is refused.
  void freeze() { frozen_.assign(payload_, payload_ + size_); }
  void fill(unsigned char with);
  // Back to the frozen content.
  void reset();
  bool as_frozen() const;
  std::vector<unsigned char> content() const { return {payload_, payload_ + size_}; }
  void check_guards() const;

 private:
  size_t size_, skew_;
  Kind kind_;
  unsigned char* memory_;
  unsigned char* payload_;
  std::vector<unsigned char> frozen_;
};

}  // namespace fuzz
