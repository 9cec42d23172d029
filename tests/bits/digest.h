// 64-bit digests of results. Two arrays with the same digest have the same bits, NaN apart: a NaN counts as
// one value, whatever its sign and payload, because no result promises them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bits {

class Digest {
 public:
  void add(uint64_t word);
  void add(float value);
  void add(const std::vector<float>& values);
  void add(const std::vector<int64_t>& values);
  std::string hex() const;

 private:
  uint64_t state_ = 0x243f6a8885a308d3u;  // any number that is not 0: digits of pi
};

// A line of digests: " name=hex" for every array that is not empty.
class Line {
 public:
  template <class T>
  void add(const std::string& name, const std::vector<T>& values) {
    if (values.empty()) return;
    Digest digest;
    digest.add(values);
    text_ += " " + name + "=" + digest.hex();
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace bits
