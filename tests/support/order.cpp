// Philox4x32-10 and the Feistel network with cycle walking, as the document states them.
#include "support/order.h"

#include <algorithm>
#include <array>

namespace support {
namespace {

constexpr int64_t kCycles = 16;

using Words = std::array<uint32_t, 4>;

Words philox(Words c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

Words draw(uint64_t seed, uint64_t offset, uint32_t stream, uint64_t index) {
  const uint64_t quarter = offset / 4;
  return philox({static_cast<uint32_t>(quarter), static_cast<uint32_t>(quarter >> 32), static_cast<uint32_t>(index),
                 stream << 24 | static_cast<uint32_t>(index >> 32)},
                static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

}  // namespace

int64_t sigma_at(uint64_t seed, uint64_t offset, uint64_t index, int64_t size, int64_t i) {
  if (size == 1) return 0;
  std::array<uint32_t, 16> key;
  for (uint64_t b = 0; b < 4; ++b) {
    const Words words = draw(seed, offset, 3, 4 * index + b);
    std::copy(words.begin(), words.end(), key.begin() + 4 * static_cast<int64_t>(b));
  }
  int bits = 8;
  while ((int64_t{1} << bits) < size) ++bits;
  const int left_bits = bits / 2, right_bits = bits - left_bits;
  auto x = static_cast<uint32_t>(i);
  do {
    uint32_t left = x >> right_bits, right = x & ((1u << right_bits) - 1);
    for (size_t round = 0; round < 8; ++round) {
      const uint32_t a = key[2 * round] | 1, b = key[2 * round + 1];
      if (round % 2 == 0)
        right ^= (a * left + b) >> (32 - right_bits);
      else
        left ^= (a * right + b) >> (32 - left_bits);
    }
    x = left << right_bits | right;
  } while (x >= static_cast<uint64_t>(size));
  return x;
}

std::vector<bool> rows_beyond_cycles(const Case& c) {
  const fnce_problem& p = c.problem;
  std::vector<bool> beyond(static_cast<size_t>(p.k), false);
  if (p.k == 0) return beyond;
  const int64_t global = p.k_global > 0 ? p.k_global : p.k;
  const int64_t block = p.perm_block > 0 ? std::min(p.perm_block, global) : global;
  const int64_t index =
      (p.column_offset + p.k - 1) / block;  // of the shard's last block, the only one that may be short
  const int64_t first = index * block, size = std::min(block, global - first);
  const uint64_t offset = c.numbers.offset + c.numbers.offset_increment;
  for (int64_t i = size / kCycles * kCycles; i < size; ++i)
    beyond[static_cast<size_t>(first - p.column_offset +
                               sigma_at(c.numbers.seed, offset, static_cast<uint64_t>(index), size, i))] = true;
  return beyond;
}

}  // namespace support
