// Arrays of an element type in device memory, as floats on the host: what is uploaded is rounded to the type from its
// definition (oracle/element.h), what is downloaded converts exactly.
#pragma once

#include <cstdint>
#include <vector>

#include "flashnce/flashnce.h"
#include "oracle/element.h"
#include "support/device.h"

namespace support {

inline constexpr int32_t kTypes[] = {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16};

// What FNCE_FLOAT32 | FNCE_FLOAT16 | FNCE_BFLOAT16 stands for; a number that is none of them counts as float32.
oracle::Element element_of(int32_t type);
size_t element_size(int32_t type);
const char* type_name(int32_t type);

class Elements {
 public:
  // `skew`: bytes past an aligned address where the type has four bytes; of two bytes, half as many.
  Elements(int32_t type, int64_t count, size_t skew = 0);
  Elements(int32_t type, const std::vector<float>& values, size_t skew = 0);

  void* get() const { return memory_.get(); }
  int64_t count() const { return count_; }
  int32_t type() const { return type_; }
  std::vector<float> values() const;
  bool holds(const std::vector<float>& expected) const;
  bool guards_intact() const { return memory_.guards_intact(); }
  bool untouched() const { return memory_.untouched(); }

 private:
  int32_t type_;
  int64_t count_;
  Buffer<unsigned char> memory_;
};

}  // namespace support
