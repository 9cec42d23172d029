// The counter's layout and the uniformity of the words. Known answers: known_answers_test.cpp.
#include "math/philox.h"

#include "distributions.h"
#include "support/catch.h"

#include <set>

using namespace fnce;

namespace {

std::vector<uint32_t> words(Philox4 block) { return {block.word[0], block.word[1], block.word[2], block.word[3]}; }

}  // namespace

TEST_CASE("philox: seed, offset, stream and index go to their places of key and counter") {
  const auto by_hand = philox4x32_10(0x89ABCDEFu, 0x01234567u, 0x55667788u, 0x02334455u, 0xDDCCBBAAu, 0x11223344u);
  const auto block = draw_block(0x11223344DDCCBBAAu, 0x0123456789ABCDEFu * 4, Stream::kLambdaNeg, 0x33445555667788u);
  CHECK(words(by_hand) == words(block));
}

TEST_CASE("philox: neighbouring calls, streams, indices and seeds share no block") {
  std::set<std::vector<uint32_t>> seen;
  std::size_t drawn = 0;
  for (uint64_t seed : {0ull, 1ull, 1ull << 32})
    for (uint64_t offset : {0ull, 4ull, 8ull, 1ull << 34})
      for (Stream stream : {Stream::kLambdaPos, Stream::kLambdaNeg, Stream::kPermutation})
        for (uint64_t index : {0ull, 1ull, 2ull, 1ull << 32, (1ull << 56) - 1}) {
          seen.insert(words(draw_block(seed, offset, stream, index)));
          ++drawn;
        }
  CHECK(seen.size() == drawn);
}

TEST_CASE("philox: the four offsets of a call name the same block") {
  CHECK(words(draw_block(5, 8, Stream::kLambdaPos, 3)) == words(draw_block(5, 11, Stream::kLambdaPos, 3)));
  CHECK(words(draw_block(5, 8, Stream::kLambdaPos, 3)) != words(draw_block(5, 12, Stream::kLambdaPos, 3)));
}

// False alarm of each check: 1e-6.
TEST_CASE("philox: every byte of every word is uniform along the index") {
  constexpr uint64_t kBlocks = 1 << 16;
  std::vector<std::vector<int64_t>> counts(16, std::vector<int64_t>(256));
  for (uint64_t index = 0; index < kBlocks; ++index) {
    const Philox4 block = draw_block(99, 0, Stream::kLambdaPos, index);
    for (std::size_t byte = 0; byte < 16; ++byte) ++counts[byte][(block.word[byte / 4] >> (byte % 4 * 8)) & 0xFF];
  }
  for (const auto& count : counts) CHECK(std::fabs(chi_squared_z(count)) < kNormalThreshold);
}
