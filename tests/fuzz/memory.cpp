// Guarded blocks.
#include "fuzz/memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define FNCE_FUZZ_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FNCE_FUZZ_ASAN 1
#endif
#endif
#ifdef FNCE_FUZZ_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif

namespace fuzz {
namespace {

constexpr size_t kGuard = FNCE_ALIGNMENT;
constexpr unsigned char kGuardByte = 0x5C, kFill = 0xAB;
constexpr std::align_val_t kAlignment{FNCE_ALIGNMENT};

}  // namespace

void broken(const std::string& what) {
  std::fprintf(stderr, "broken promise: %s\nlast error: %s\n", what.c_str(), fnce_last_error());
  std::abort();
}

Block::Block(size_t bytes, Kind kind, size_t skew) : size_(bytes), skew_(skew), kind_(kind) {
  const size_t total = kGuard + skew_ + size_ + kGuard;
  memory_ = static_cast<unsigned char*>(::operator new(total, kAlignment));
  payload_ = memory_ + kGuard + skew_;
  std::memset(memory_, kGuardByte, total);
  fill(kFill);
  freeze();
  ASAN_POISON_MEMORY_REGION(memory_, kGuard + skew_);
  ASAN_POISON_MEMORY_REGION(payload_ + size_, kGuard);
}

Block::~Block() {
  check_guards();
  if (kind_ == kInput) require(as_frozen(), "an input has changed");
  ASAN_UNPOISON_MEMORY_REGION(memory_, kGuard + skew_ + size_ + kGuard);
  ::operator delete(memory_, kAlignment);
}

void Block::fill(unsigned char with) {
  if (size_ > 0) std::memset(payload_, with, size_);
}

void Block::reset() {
  if (size_ > 0) std::memcpy(payload_, frozen_.data(), size_);
}

bool Block::as_frozen() const { return size_ == 0 || std::memcmp(payload_, frozen_.data(), size_) == 0; }

void Block::check_guards() const {
#ifndef FNCE_FUZZ_ASAN
  for (const unsigned char* b = memory_; b < payload_; ++b) require(*b == kGuardByte, "bytes before an array written");
  for (const unsigned char* b = payload_ + size_; b < payload_ + size_ + kGuard; ++b)
    require(*b == kGuardByte, "bytes after an array written");
#endif
}

}  // namespace fuzz
