#include "hostcuda/planted/problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "math/half.h"

namespace main_pass {
namespace {

bool is_bfloat(const Case& c) { return c.operand == Operand::kBfloat; }
uint16_t to_16(const Case& c, float x) { return is_bfloat(c) ? fnce::float_to_bfloat(x) : fnce::float_to_half(x); }
float from_16(const Case& c, uint16_t x) { return is_bfloat(c) ? fnce::bfloat_to_float(x) : fnce::half_to_float(x); }

// x times 2^exponent in one float16, or in two.
double as_multiplied(const Case& c, float x) {
  const float scaled = std::ldexp(x, kQueueExponent);
  const float high = fnce::half_to_float(fnce::float_to_half(scaled));
  const float low = c.operand == Operand::kHalfSplit ? fnce::half_to_float(fnce::float_to_half(scaled - high)) : 0.0f;
  return std::ldexp(static_cast<double>(high) + static_cast<double>(low), -kQueueExponent);
}

}  // namespace

Bytes::Bytes(size_t size, size_t shift) : memory_(new unsigned char[size + shift]), start_(memory_.get() + shift) {
  std::memset(memory_.get(), 0xff, size + shift);  // NaN
}

Inputs::Inputs(const Case& given) : c(given), tile(sm80::tile_of(given.operand, given.tile)) {
  std::mt19937_64 random(c.seed);
  make_anchors(random);
  make_segment(random, c.k);
  if (c.columns == Columns::kPremixed) make_segment(random, c.k);
  if (c.columns == Columns::kScores) make_tables(random);
  const int64_t size = element_size();
  wide = !c.misaligned && (c.d + c.padding) * size % 16 == 0 && c.d * size % 16 == 0;
  for (int set = 0; set < 2; ++set) {
    std::normal_distribution<float> threshold(0.0f, 0.5f * c.size);
    for (int64_t i = 0; i < c.n; ++i) {
      upper[set].push_back(threshold(random));
      lower[set].push_back(upper[set].back() - 0.1f * c.size);
    }
  }
}

void Inputs::make_anchors(std::mt19937_64& random) {
  const int64_t rows = (c.n + tile.rows() - 1) / tile.rows() * tile.rows();
  const auto plane = static_cast<size_t>(rows * tile.d);
  packed.assign(plane * static_cast<size_t>(planes_of(c.operand)), 0);
  packed_scale.assign(static_cast<size_t>(rows), 1.0f);
  std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(c.d)));
  for (int64_t i = 0; i < c.n; ++i) {
    std::vector<float> row(static_cast<size_t>(c.d));
    float largest = 0.0f;
    for (float& x : row) {
      x = normal(random) * (i % 3 == 1 ? 0.01f : 1.0f);
      largest = std::max(largest, std::fabs(x));
    }
    const int exponent = is_bfloat(c) ? 0 : std::ilogb(largest) - kAnchorExponent;
    for (int64_t f = 0; f < c.d; ++f) {
      const float x = std::ldexp(row[static_cast<size_t>(f)], -exponent);
      const uint16_t high = to_16(c, x);
      double value = static_cast<double>(from_16(c, high));
      const auto at = static_cast<size_t>(i * tile.d + f);
      packed[at] = high;
      if (c.operand == Operand::kHalfSplit) {
        packed[plane + at] = to_16(c, x - from_16(c, high));
        value += static_cast<double>(from_16(c, packed[plane + at]));
      }
      anchors.push_back(std::ldexp(value, exponent));
    }
    const int queue_exponent = converts(c.operand) ? kQueueExponent : 0;
    packed_scale[static_cast<size_t>(i)] = std::ldexp(1.0f, exponent - queue_exponent);
  }
}

void Inputs::make_segment(std::mt19937_64& random, int64_t count) {
  const int64_t stride = c.d + c.padding, size = element_size();
  const auto bytes = static_cast<size_t>(count > 0 ? ((count - 1) * stride + c.d) * size : 0);
  Rows rows = {Bytes(bytes, c.misaligned ? static_cast<size_t>(size) : 0), count, stride, {}};
  std::normal_distribution<float> normal(0.0f, c.size / std::sqrt(static_cast<float>(c.d)));
  for (int64_t j = 0; j < count; ++j)
    for (int64_t f = 0; f < c.d; ++f) {
      float x = normal(random) * (1.0f + (c.growth - 1.0f) * static_cast<float>(j) / static_cast<float>(count));
      x += c.mean / std::sqrt(static_cast<float>(c.d));
      if (converts(c.operand)) x = std::clamp(x, -kQueueMost, kQueueMost);
      if (c.planted != 0.0f && j == count / 2 && f == c.d / 3) x = c.planted;
      unsigned char* at = rows.bytes.get() + (j * stride + f) * size;
      if (converts(c.operand)) {
        std::memcpy(at, &x, sizeof x);
        rows.values.push_back(as_multiplied(c, x));
      } else {
        const uint16_t bits = to_16(c, x);
        std::memcpy(at, &bits, sizeof bits);
        rows.values.push_back(static_cast<double>(from_16(c, bits)));
      }
    }
  segments.push_back(std::move(rows));
}

void Inputs::make_tables(std::mt19937_64& random) {
  for (int64_t i = 0; i < c.k; ++i) order.push_back(static_cast<int32_t>(i));
  std::shuffle(order.begin(), order.end(), random);
  std::uniform_real_distribution<float> uniform(c.lambda_low, c.lambda_high);
  for (int64_t i = 0; i < (c.lambda_per_row ? c.k : 1); ++i) lambda.push_back(uniform(random));
  // As table blocks write it, each of its own stretch.
  extent.assign(3, 1.0f);
  for (size_t i = 0; i < lambda.size(); ++i)
    extent[i % 3] = std::max(extent[i % 3], std::fabs(lambda[i]) + std::fabs(1.0f - lambda[i]));
}

}  // namespace main_pass
