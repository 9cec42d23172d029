// The CPU as a test device, guard zones of buffers, and the choice by FNCE_TEST_DEVICE.
#include "support/device.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "support/cuda_device.h"

namespace support {
namespace {

constexpr int kSkipped = 77;
constexpr size_t kGuard = FNCE_ALIGNMENT;
constexpr unsigned char kGuardByte = 0x5C;

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && std::strcmp(value, "1") == 0;
}

class CpuDevice final : public Device {
 public:
  int32_t kind() const override { return FNCE_CPU; }
  int32_t index() const override { return 0; }
  fnce_stream stream() const override { return nullptr; }
  bool host_memory() const override { return true; }
  bool emulated() const override { return emulated_; }
  int64_t max_products() const override { return emulated_ ? 1'500'000 : 6'000'000; }
  void* allocate(size_t bytes) const override { return ::operator new (bytes, std::align_val_t{FNCE_ALIGNMENT}); }
  void release(void* memory) const override { ::operator delete (memory, std::align_val_t{FNCE_ALIGNMENT}); }
  void upload(void* to, const void* from, size_t bytes) const override { copy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) const override { copy(to, from, bytes); }
  void synchronize() const override {}

 private:
  // A processor that another one plays.
  const bool emulated_ = is_set("FNCE_TEST_EMULATED");

  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
};

[[noreturn]] void end(int code, const std::string& reason) {
  std::fprintf(stderr, "%s\n", reason.c_str());
  std::fflush(nullptr);
  std::_Exit(code);
}

[[noreturn]] void absent(const std::string& reason) {
  if (is_set("FLASHNCE_REQUIRE_GPU")) end(1, "FLASHNCE_REQUIRE_GPU is 1, but there is " + reason);
  end(kSkipped, "skipped: " + reason);
}

const Device& choose_cuda() {
  int32_t count = 0;
  fnce_device_count(FNCE_CUDA, &count);
  if (is_set("FNCE_TEST_HOSTCUDA")) {
    const Device* emulated = count > 0 ? emulated_cuda_device() : nullptr;
    if (emulated == nullptr)
      end(1, "FNCE_TEST_HOSTCUDA is 1, but this library has no CUDA backend that runs on the CPU");
    return *emulated;
  }
  if (count == 0) absent("no CUDA device");
  std::string reason;
  const Device* cuda = cuda_device(reason);
  if (cuda == nullptr) absent(reason);
  return *cuda;
}

const Device& cpu() {
  static const CpuDevice cpu;
  return cpu;
}

thread_local int on_cpu = 0;  // live OnCpu of this thread

const Device& choose() {
  const char* name = std::getenv("FNCE_TEST_DEVICE");
  if (name == nullptr || std::strcmp(name, "cpu") == 0) return cpu();
  if (std::strcmp(name, "cuda") != 0) end(1, std::string("FNCE_TEST_DEVICE is ") + name + "; allowed: cpu, cuda");
  return choose_cuda();
}

}  // namespace

const Device& device() {
  static const Device& chosen = choose();
  return on_cpu > 0 ? cpu() : chosen;
}

OnCpu::OnCpu() { ++on_cpu; }
OnCpu::~OnCpu() { --on_cpu; }

int64_t affordable(int64_t n, int64_t k, int64_t d) {
  if (!device().emulated()) return k;
  return std::min(k, std::max<int64_t>(17, device().max_products() / (n * d)));
}

int affordable_repeats(int many, int few) { return device().emulated() ? few : many; }

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
