// The permutation pi = sigma C sigma^-1 of equation (3). sigma is a keyed Feistel bijection of 0..size-1 (8 rounds of
// multiply-add-shift, cycle walking); C is a fixed cycle inside 16 neighbouring positions, so that in the order of
// sigma a row and its partner are always close: sizes divisible by 16 have cycles of length 4 only. All indices are
// local to one block of columns (PermutationBlock); the global column is first + local.
#pragma once

#include "math/philox.h"

namespace fnce {

constexpr int kFeistelRounds = 8;
// With fewer bits or rounds the permutations of small sizes are measurably not uniform.
constexpr uint32_t kFeistelMinBits = 8;

struct Feistel {
  uint32_t a[kFeistelRounds], b[kFeistelRounds];
  uint32_t size;
  uint32_t left_bits, right_bits;
};

// 1 <= size <= 2^31 - 1.
FNCE_HD constexpr Feistel make_feistel(uint64_t seed, uint64_t offset, uint64_t block, uint32_t size) {
  Feistel f{};
  for (uint32_t part = 0; part < kFeistelRounds / 2; ++part) {
    const Philox4 words = draw_block(seed, offset, Stream::kPermutation, 4 * block + part);
    f.a[2 * part] = words.word[0] | 1u;
    f.b[2 * part] = words.word[1];
    f.a[2 * part + 1] = words.word[2] | 1u;
    f.b[2 * part + 1] = words.word[3];
  }
  uint32_t bits = kFeistelMinBits;
  while ((uint64_t{1} << bits) < size) ++bits;
  f.size = size;
  f.left_bits = bits / 2;
  f.right_bits = bits - bits / 2;
  return f;
}

// One pass over 0..2^(left_bits + right_bits)-1: the result may be >= size.
FNCE_HD constexpr uint32_t feistel_once(const Feistel& f, uint32_t x) {
  uint32_t left = x >> f.right_bits;
  uint32_t right = x & ((1u << f.right_bits) - 1u);
  for (int round = 0; round < kFeistelRounds; round += 2) {
    right ^= (f.a[round] * left + f.b[round]) >> (32 - f.right_bits);
    left ^= (f.a[round + 1] * right + f.b[round + 1]) >> (32 - f.left_bits);
  }
  return (left << f.right_bits) | right;
}

FNCE_HD constexpr uint32_t feistel_once_inverse(const Feistel& f, uint32_t x) {
  uint32_t left = x >> f.right_bits;
  uint32_t right = x & ((1u << f.right_bits) - 1u);
  for (int round = kFeistelRounds - 2; round >= 0; round -= 2) {
    left ^= (f.a[round + 1] * right + f.b[round + 1]) >> (32 - f.left_bits);
    right ^= (f.a[round] * left + f.b[round]) >> (32 - f.right_bits);
  }
  return (left << f.right_bits) | right;
}

// A bijection of 0..size-1, for i < size. The walk along a cycle of the pass ends, at i itself at the latest.
FNCE_HD constexpr uint32_t sigma(const Feistel& f, uint32_t i) {
  if (f.size == 1) return 0;
  do {
    i = feistel_once(f, i);
  } while (i >= f.size);
  return i;
}

FNCE_HD constexpr uint32_t sigma_inverse(const Feistel& f, uint32_t i) {
  if (f.size == 1) return 0;
  do {
    i = feistel_once_inverse(f, i);
  } while (i >= f.size);
  return i;
}

// C for sizes divisible by 16: i -> i+1 -> i+8 -> i+9 -> i on positions whose bits 0 and 3 are clear.
FNCE_HD constexpr uint32_t cycle_next_in_16(uint32_t i) {
  const uint32_t v = (((i >> 2) & 2u) + (i & 1u) + 1u) & 3u;
  return (i & ~9u) | ((v & 2u) << 2) | (v & 1u);
}

FNCE_HD constexpr uint32_t cycle_previous_in_16(uint32_t i) {
  const uint32_t v = (((i >> 2) & 2u) + (i & 1u) + 3u) & 3u;
  return (i & ~9u) | ((v & 2u) << 2) | (v & 1u);
}

// C skips positions at or beyond size, so that the last cycles may be shorter. i < size.
FNCE_HD constexpr uint32_t cycle_next(uint32_t i, uint32_t size) {
  do {
    i = cycle_next_in_16(i);
  } while (i >= size);
  return i;
}

FNCE_HD constexpr uint32_t cycle_previous(uint32_t i, uint32_t size) {
  do {
    i = cycle_previous_in_16(i);
  } while (i >= size);
  return i;
}

// pi within one block.
FNCE_HD constexpr uint32_t permute(const Feistel& f, uint32_t j) {
  return sigma(f, cycle_next(sigma_inverse(f, j), f.size));
}

// Columns [first, first + size) of the global queue, permuted among themselves.
struct PermutationBlock {
  uint64_t index;
  int64_t first;
  uint32_t size;
};

// The block that holds a global column. perm_block 0 is one block of all columns.
FNCE_HD constexpr PermutationBlock permutation_block(int64_t column, int64_t perm_block, int64_t k_global) {
  const int64_t width = perm_block == 0 ? k_global : perm_block;
  const int64_t index = column / width;
  const int64_t first = index * width;
  const int64_t rest = k_global - first;
  return PermutationBlock{static_cast<uint64_t>(index), first, static_cast<uint32_t>(rest < width ? rest : width)};
}

}  // namespace fnce
