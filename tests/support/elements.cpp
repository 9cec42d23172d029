// Host copies of typed arrays.
#include "support/elements.h"

#include <cstring>

namespace support {
namespace {

std::vector<unsigned char> encoded(int32_t type, const std::vector<float>& values) {
  std::vector<unsigned char> bytes(values.size() * element_size(type));
  if (element_size(type) == 4) {
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  const oracle::Element element = element_of(type);
  const std::vector<float> rounded = oracle::rounded(element, values);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = oracle::encode(element, rounded[i]);
    std::memcpy(bytes.data() + 2 * i, &bits, 2);
  }
  return bytes;
}

size_t skew_of(int32_t type, size_t skew) { return element_size(type) == 4 ? skew : skew / 2; }

}  // namespace

oracle::Element element_of(int32_t type) {
  if (type == FNCE_FLOAT16) return oracle::Element::kFloat16;
  return type == FNCE_BFLOAT16 ? oracle::Element::kBfloat16 : oracle::Element::kFloat32;
}

size_t element_size(int32_t type) { return element_of(type) == oracle::Element::kFloat32 ? 4 : 2; }

const char* type_name(int32_t type) {
  if (type == FNCE_FLOAT16) return "float16";
  return type == FNCE_BFLOAT16 ? "bfloat16" : "float32";
}

Elements::Elements(int32_t type, int64_t count, size_t skew)
    : type_(type), count_(count), memory_(count * static_cast<int64_t>(element_size(type)), skew_of(type, skew)) {}

Elements::Elements(int32_t type, const std::vector<float>& values, size_t skew)
    : type_(type), count_(static_cast<int64_t>(values.size())), memory_(encoded(type, values), skew_of(type, skew)) {}

std::vector<float> Elements::values() const {
  const std::vector<unsigned char> bytes = memory_.values();
  std::vector<float> out(static_cast<size_t>(count_));
  if (element_size(type_) == 4) {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    out[i] = oracle::decode(element_of(type_), bits);
  }
  return out;
}

bool Elements::holds(const std::vector<float>& expected) const { return memory_.holds(encoded(type_, expected)); }

}  // namespace support
