// Philox4x32-10 (Salmon et al. 2011) and the layout of its counter, from which every random bit of the library comes.
// It equals cuRAND's curand_init(seed, stream << 56 | index, offset) followed by curand4: docs/maths.md, "Randomness".
#pragma once

#include "math/hd.h"

namespace fnce {

struct Philox4 {
  uint32_t word[4];
};

// The purpose of a draw, which is part of the counter.
enum class Stream : uint32_t { kLambdaPos = 1, kLambdaNeg = 2, kPermutation = 3 };

FNCE_HD constexpr Philox4 philox4x32_10(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = static_cast<uint32_t>(product1);
    c2 = n2;
    c3 = static_cast<uint32_t>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox4{{c0, c1, c2, c3}};
}

// The 128 bits at `index` of a stream: key = seed, counter = (stream << 56 | index) : (offset / 4). index < 2^56.
FNCE_HD constexpr Philox4 draw_block(uint64_t seed, uint64_t offset, Stream stream, uint64_t index) {
  const uint64_t low = offset / 4;
  return philox4x32_10(static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(index),
                       (static_cast<uint32_t>(stream) << 24) | static_cast<uint32_t>(index >> 32),
                       static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

}  // namespace fnce
