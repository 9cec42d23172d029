// float16 and bfloat16 against their definition: every pattern of 16 bits to float32, and float32 to the nearest of
// them, of two equally near ones that with an even last bit. The definition is in tables made by arithmetic, not by
// bits.
#include "math/half.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "support/catch.h"

using namespace fnce;

namespace {

struct Format {
  const char* name;
  int fraction_bits, exponent_bits;
  float (*to_float)(uint16_t);
  uint16_t (*from_float)(float);

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  uint16_t infinity() const { return static_cast<uint16_t>(((1 << exponent_bits) - 1) << fraction_bits); }
};

// The functions under test are inlined everywhere else: the address needs a function of its own.
const Format kFormats[] = {
    {"float16", 10, 5, [](uint16_t x) { return half_to_float(x); }, [](float x) { return float_to_half(x); }},
    {"bfloat16", 7, 8, [](uint16_t x) { return bfloat_to_float(x); }, [](float x) { return float_to_bfloat(x); }}};

// The number that a pattern without sign stands for, below infinity.
double value_of(const Format& f, uint16_t bits) {
  const int field = bits >> f.fraction_bits, fraction = bits & ((1 << f.fraction_bits) - 1);
  const double digits = double(fraction) / (1 << f.fraction_bits);
  return field == 0 ? std::ldexp(digits, 1 - f.bias()) : std::ldexp(1 + digits, field - f.bias());
}

// All finite magnitudes, ascending, and then the one that rounding to infinity would be.
std::vector<double> magnitudes(const Format& f) {
  std::vector<double> out;
  for (uint16_t bits = 0; bits < f.infinity(); ++bits) out.push_back(value_of(f, bits));
  out.push_back(std::ldexp(1.0, f.bias() + 1));
  return out;
}

// The pattern nearest to a finite value, by search among all of them.
uint16_t nearest(const std::vector<double>& all, float value) {
  const double x = std::abs(double(value));
  size_t high = static_cast<size_t>(std::upper_bound(all.begin(), all.end(), x) - all.begin());
  if (high == all.size()) high = all.size() - 1;
  const size_t low = high - 1;
  const double below = x - all[low], above = all[high] - x;
  const bool up = above < below || (above == below && high % 2 == 0);
  return static_cast<uint16_t>((up ? high : low) | (std::signbit(value) ? 0x8000 : 0));
}

size_t count_wrong(const Format& f, const std::vector<float>& values) {
  const std::vector<double> all = magnitudes(f);
  size_t wrong = 0;
  for (const float value : values) wrong += f.from_float(value) != nearest(all, value);
  return wrong;
}

}  // namespace

TEST_CASE("half: every pattern converts to the number that it stands for") {
  for (const Format& f : kFormats) {
    INFO(f.name);
    size_t wrong = 0;
    for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
      const auto bits = static_cast<uint16_t>(pattern), magnitude = static_cast<uint16_t>(pattern & 0x7fff);
      const float actual = f.to_float(bits);
      wrong += static_cast<bool>(std::signbit(actual)) != (pattern >= 0x8000);
      if (magnitude > f.infinity())
        wrong += !std::isnan(actual);
      else if (magnitude == f.infinity())
        wrong += !std::isinf(actual);
      else
        wrong += std::abs(double(actual)) != value_of(f, magnitude);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("half: every pattern survives the way to float32 and back; a NaN stays a NaN") {
  for (const Format& f : kFormats) {
    INFO(f.name);
    size_t wrong = 0;
    for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
      const auto bits = static_cast<uint16_t>(pattern);
      const uint16_t back = f.from_float(f.to_float(bits));
      const bool nan = (bits & 0x7fff) > f.infinity();
      wrong += nan ? (back & 0x7fff) <= f.infinity() || ((back ^ bits) & 0x8000) != 0 : back != bits;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("half: numbers, middles of two numbers, and their neighbours round to the nearest, ties to even") {
  for (const Format& f : kFormats) {
    INFO(f.name);
    std::vector<float> values;
    const std::vector<double> all = magnitudes(f);
    const double largest = double(std::numeric_limits<float>::max());
    for (size_t i = 0; i + 1 < all.size(); ++i)
      for (const double x : {all[i], (all[i] + all[i + 1]) / 2}) {
        if (x > largest) continue;
        const auto middle = static_cast<float>(x);
        REQUIRE(double(middle) == x);
        for (const float y : {middle, std::nextafter(middle, INFINITY), std::nextafter(middle, -INFINITY)})
          if (std::isfinite(y)) values.insert(values.end(), {y, -y});
      }
    CHECK(count_wrong(f, values) == 0);
  }
}

TEST_CASE("half: random bits of float32 round to the nearest") {
  std::mt19937 bits(7);
  std::vector<float> values;
  while (values.size() < 200000) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(bits()));
    if (std::isfinite(value)) values.push_back(value);
  }
  // Within the range of float16 too, where random exponents seldom fall.
  for (int i = 0; i < 200000; ++i) values.push_back(std::ldexp(float(bits() >> 8) * 0x1p-24f, int(bits() % 44) - 27));
  for (const Format& f : kFormats) {
    INFO(f.name);
    CHECK(count_wrong(f, values) == 0);
  }
}

TEST_CASE(
    "half: overflow gives infinity from half a unit beyond the largest number on, every NaN of float32 stays one") {
  CHECK(float_to_half(65519.996f) == 0x7bff);
  CHECK(float_to_half(65520.0f) == 0x7c00);
  CHECK(float_to_half(-1e30f) == 0xfc00);
  CHECK(float_to_bfloat(std::bit_cast<float>(0x7f7f7fffu)) == 0x7f7f);
  CHECK(float_to_bfloat(std::bit_cast<float>(0x7f7f8000u)) == 0x7f80);
  CHECK(float_to_bfloat(-std::numeric_limits<float>::max()) == 0xff80);
  for (const Format& f : kFormats) {
    INFO(f.name);
    CHECK(f.from_float(INFINITY) == f.infinity());
    CHECK(f.from_float(-INFINITY) == (f.infinity() | 0x8000));
    size_t wrong = 0;
    // Quiet and signalling, either sign, payloads in every bit, also those that a shorter fraction has no room for.
    for (uint32_t payload = 1; payload < (1u << 23); payload += payload < 4096 ? 1 : 1009)
      for (const uint32_t sign : {0u, 0x80000000u}) {
        const uint16_t bits = f.from_float(std::bit_cast<float>(sign | 0x7f800000u | payload));
        wrong += (bits & 0x7fff) <= f.infinity() || (bits & 0x8000) != sign >> 16;
      }
    CHECK(wrong == 0);
  }
}
