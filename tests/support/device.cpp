// The CPU as a test device, guard zones of buffers, and the choice by FNCE_TEST_DEVICE.
#include "support/device.h"

#include <cstdio>
#include <cstdlib>
#include <new>

namespace support {
namespace {

constexpr int kSkipped = 77;
constexpr size_t kGuard = FNCE_ALIGNMENT;
constexpr unsigned char kGuardByte = 0x5C;

class CpuDevice final : public Device {
 public:
  int32_t kind() const override { return FNCE_CPU; }
  int32_t index() const override { return 0; }
  fnce_stream stream() const override { return nullptr; }
  bool host_memory() const override { return true; }
  int64_t max_products() const override { return 6'000'000; }
  void* allocate(size_t bytes) const override { return ::operator new (bytes, std::align_val_t{FNCE_ALIGNMENT}); }
  void release(void* memory) const override { ::operator delete (memory, std::align_val_t{FNCE_ALIGNMENT}); }
  void upload(void* to, const void* from, size_t bytes) const override { copy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) const override { copy(to, from, bytes); }
  void synchronize() const override {}

 private:
  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
};

[[noreturn]] void skip(const char* reason) {
  std::fprintf(stderr, "skipped: %s\n", reason);
  std::fflush(nullptr);
  std::_Exit(kSkipped);
}

const Device& choose() {
  const char* name = std::getenv("FNCE_TEST_DEVICE");
  if (name == nullptr || std::strcmp(name, "cpu") == 0) {
    static const CpuDevice cpu;
    return cpu;
  }
  if (std::strcmp(name, "cuda") != 0) {
    std::fprintf(stderr, "FNCE_TEST_DEVICE is %s; allowed: cpu, cuda\n", name);
    std::_Exit(1);
  }
  int32_t count = 0;
  fnce_device_count(FNCE_CUDA, &count);
  if (count == 0) skip("no CUDA device");
  skip("these tests are built without CUDA memory");
}

}  // namespace

const Device& device() {
  static const Device& chosen = choose();
  return chosen;
}

Block::Block(size_t bytes, size_t skew) : size_(bytes) {
  const size_t total = kGuard + skew + bytes + kGuard;
  memory_ = static_cast<char*>(device().allocate(total));
  payload_ = memory_ + kGuard + skew;
  const std::vector<unsigned char> guard(total, kGuardByte);
  device().upload(memory_, guard.data(), total);
}

Block::~Block() {
  if (memory_ != nullptr) device().release(memory_);
}

Block::Block(Block&& other) noexcept : size_(other.size_), memory_(other.memory_), payload_(other.payload_) {
  other.memory_ = nullptr;
}

bool Block::guards_intact() const {
  device().synchronize();
  const size_t before = static_cast<size_t>(payload_ - memory_);
  std::vector<unsigned char> guard(before + kGuard);
  device().download(guard.data(), memory_, before);
  device().download(guard.data() + before, payload_ + size_, kGuard);
  for (const unsigned char byte : guard)
    if (byte != kGuardByte) return false;
  return true;
}

}  // namespace support
