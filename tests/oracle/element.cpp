// Conversions of element types in float64 arithmetic, which holds every number of all three types exactly.
#include "oracle/element.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace oracle {
namespace {

struct Format {
  int digits;           // significant binary digits, the leading one included
  int lowest, highest;  // exponents e of the smallest and largest normal numbers 1.f * 2^e
};

Format format_of(Element element) {
  switch (element) {
    case Element::kFloat16: return {11, -14, 15};
    case Element::kBfloat16: return {8, -126, 127};
    case Element::kFloat32: break;
  }
  return {24, -126, 127};
}

}  // namespace

double spacing(Element element, double magnitude) {
  const Format f = format_of(element);
  int exponent = f.lowest;
  if (magnitude > 0) exponent = std::clamp(std::ilogb(magnitude), f.lowest, f.highest);
  return std::ldexp(1.0, exponent - (f.digits - 1));
}

double rounded(Element element, double value) {
  if (!std::isfinite(value) || value == 0) return value;
  const double unit = spacing(element, std::abs(value));
  const double nearest = std::nearbyint(value / unit) * unit;  // ties to even; dividing by a power of two is exact
  const double beyond = std::ldexp(1.0, format_of(element).highest + 1);
  if (std::abs(nearest) >= beyond) return std::copysign(std::numeric_limits<double>::infinity(), value);
  return std::copysign(nearest, value);
}

double spacing(Element element, double magnitude, int exponent) {
  return std::ldexp(spacing(element, std::ldexp(magnitude, exponent)), -exponent);
}

double rounded(Element element, double value, int exponent) {
  return std::ldexp(rounded(element, std::ldexp(value, exponent)), -exponent);
}

uint16_t encode(Element element, float value) {
  const Format f = format_of(element);
  const int fraction_digits = f.digits - 1, exponent_digits = 16 - f.digits;
  const int sign = std::signbit(value) ? 1 << 15 : 0, ones = ((1 << exponent_digits) - 1) << fraction_digits;
  if (std::isnan(value)) {
    const auto payload = static_cast<int>((std::bit_cast<uint32_t>(value) & 0x7fffffu) >> (23 - fraction_digits));
    return static_cast<uint16_t>(sign | ones | std::max(payload, 1));
  }
  if (std::isinf(value)) return static_cast<uint16_t>(sign | ones);
  const double magnitude = std::abs(double(value));
  const double units = magnitude / spacing(element, magnitude);  // the digits as an integer
  if (magnitude < std::ldexp(1.0, f.lowest)) return static_cast<uint16_t>(sign | static_cast<int>(units));
  const int field = std::ilogb(magnitude) - f.lowest + 1, fraction = static_cast<int>(units) - (1 << fraction_digits);
  return static_cast<uint16_t>(sign | field << fraction_digits | fraction);
}

float decode(Element element, uint16_t bits) {
  const Format f = format_of(element);
  const int fraction_digits = f.digits - 1, last_field = (1 << (16 - f.digits)) - 1;
  const int fraction = bits & ((1 << fraction_digits) - 1), field = bits >> fraction_digits & last_field;
  const uint32_t sign = (bits & 0x8000u) << 16;
  if (field == last_field)
    return std::bit_cast<float>(sign | 0x7f800000u | static_cast<uint32_t>(fraction) << (23 - fraction_digits));
  const double units = field == 0 ? fraction : fraction + (1 << fraction_digits);
  const double magnitude = std::ldexp(units, std::max(field, 1) - 1 + f.lowest - fraction_digits);
  return std::copysign(static_cast<float>(magnitude), sign ? -1.0f : 1.0f);
}

std::vector<float> rounded(Element element, std::vector<float> values) {
  if (element == Element::kFloat32) return values;
  for (float& value : values)
    if (std::isfinite(value)) value = static_cast<float>(rounded(element, double(value)));
  return values;
}

}  // namespace oracle
