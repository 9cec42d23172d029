// The device that the API-level suite runs on, so that every backend passes the same tests: memory, copies, a stream
// and size caps. FNCE_TEST_DEVICE=cpu|cuda picks it (default cpu); asking for one that is not there ends the program
// with code 77, which ctest reports as skipped, or as a failure with FLASHNCE_REQUIRE_GPU=1. With FNCE_TEST_HOSTCUDA=1
// cuda is a backend whose kernels run on the CPU, in ordinary memory. FNCE_TEST_EMULATED=1 says that the CPU is itself
// emulated: cases then are smaller and fewer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "flashnce/flashnce.h"

namespace support {

class Device {
 public:
  virtual ~Device() = default;
  virtual int32_t kind() const = 0;  // FNCE_CPU | FNCE_CUDA
  virtual int32_t index() const = 0;
  virtual fnce_stream stream() const = 0;
  virtual bool host_memory() const = 0;            // whether wrong values behind pointers can be reported
  virtual bool emulated() const { return false; }  // played by another processor, ten to hundreds of times slower
  virtual int64_t max_products() const = 0;        // cap of n*k*d of one randomised case
  virtual void* allocate(size_t bytes) const = 0;  // aligned to FNCE_ALIGNMENT at least
  virtual void release(void* memory) const = 0;
  virtual void upload(void* to, const void* from, size_t bytes) const = 0;
  virtual void download(void* to, const void* from, size_t bytes) const = 0;
  virtual void synchronize() const = 0;
  // Captures what `enqueue` puts on the stream in a graph, and launches it once after each of `before`. False where
  // there are no graphs.
  virtual bool replay(const std::function<void()>& enqueue, const std::vector<std::function<void()>>& before) const {
    (void)enqueue;
    (void)before;
    return false;
  }
};

const Device& device();

// As long as it lives, device() of this thread is the CPU. What is allocated meanwhile must be released meanwhile.
class OnCpu {
 public:
  OnCpu();
  ~OnCpu();
  OnCpu(const OnCpu&) = delete;
  OnCpu& operator=(const OnCpu&) = delete;
};

// `k`, or fewer columns where n*k*d is more than an emulated device computes in a moment; at least 17 of them.
int64_t affordable(int64_t n, int64_t k, int64_t d);
// `many`, or `few` times on an emulated device.
int affordable_repeats(int many, int few);

// Device memory of `bytes` with a guard zone on either side. The payload starts `skew` bytes past an aligned address.
class Block {
 public:
  Block(size_t bytes, size_t skew);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Block(Block&& other) noexcept;

  char* data() const { return payload_; }
  size_t size() const { return size_; }
  bool guards_intact() const;

 private:
  size_t size_;
  char* memory_;
  char* payload_;
};

// An array in device memory. New ones hold kFill bytes, which no call writes by accident: 0xAB repeated is a small
// negative float and an implausible integer.
template <class T>
class Buffer {
 public:
  static constexpr unsigned char kFill = 0xAB;

  explicit Buffer(int64_t count, size_t skew = 0)
      : block_(static_cast<size_t>(count) * sizeof(T), skew), count_(count) {
    upload(std::vector<unsigned char>(block_.size(), kFill).data());
  }
  explicit Buffer(const std::vector<T>& values, size_t skew = 0)
      : block_(values.size() * sizeof(T), skew), count_(static_cast<int64_t>(values.size())) {
    upload(values.data());
  }

  T* get() const { return reinterpret_cast<T*>(block_.data()); }
  int64_t count() const { return count_; }
  size_t bytes() const { return block_.size(); }
  bool guards_intact() const { return block_.guards_intact(); }
  void upload(const void* from) { device().upload(block_.data(), from, block_.size()); }
  std::vector<T> values() const {
    std::vector<T> out(static_cast<size_t>(count_));
    device().synchronize();
    device().download(out.data(), block_.data(), block_.size());
    return out;
  }
  bool holds(const std::vector<T>& expected) const {
    const std::vector<T> now = values();
    return now.size() == expected.size() &&
           (now.empty() || std::memcmp(now.data(), expected.data(), now.size() * sizeof(T)) == 0);
  }
  // True if every byte is still kFill.
  bool untouched() const {
    std::vector<unsigned char> now(block_.size());
    device().synchronize();
    device().download(now.data(), block_.data(), now.size());
    for (const unsigned char byte : now)
      if (byte != kFill) return false;
    return true;
  }

 private:
  Block block_;
  int64_t count_;
};

}  // namespace support
