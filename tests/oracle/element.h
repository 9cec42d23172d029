// Element types from their definition: a number is sign, significant binary digits and an exponent; conversion picks
// the nearest number, of two equally near ones that with an even last digit. Written for tests only, by arithmetic on
// float64 instead of bit operations, so that nothing is shared with the library's conversions.
#pragma once

#include <cstdint>
#include <vector>

namespace oracle {

enum class Element { kFloat32 = 1, kFloat16 = 2, kBfloat16 = 3 };

// The distance of neighbouring numbers of the type at this magnitude; below the smallest normal number that of the
// denormal ones.
double spacing(Element element, double magnitude);

// The nearest number of the type; infinity from half a unit beyond the largest number on.
double rounded(Element element, double value);

// The same for values times 2^exponent: the type's numbers times 2^-exponent.
double spacing(Element element, double magnitude, int exponent);
double rounded(Element element, double value, int exponent);

// The 16 bits of a number that a 16-bit type holds, and back. A NaN keeps its sign and the upper bits of its payload,
// so that signalling ones stay signalling.
uint16_t encode(Element element, float value);
float decode(Element element, uint16_t bits);

// Every entry rounded.
std::vector<float> rounded(Element element, std::vector<float> values);

}  // namespace oracle
