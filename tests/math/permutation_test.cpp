// sigma, C and pi are bijections for every size, pi's partners are uniform, blocks are independent of each other and of
// how the columns are sharded. Known answers: known_answers_test.cpp.
#include "math/permutation.h"

#include "distributions.h"
#include "support/catch.h"

#include <algorithm>
#include <numeric>

using namespace fnce;

namespace {

template <class Map>
bool is_bijection(uint32_t size, Map map) {
  std::vector<char> seen(size);
  for (uint32_t i = 0; i < size; ++i) {
    const uint32_t image = map(i);
    if (image >= size || seen[image]) return false;
    seen[image] = 1;
  }
  return true;
}

bool inverts(const Feistel& f, uint32_t i) {
  return sigma_inverse(f, sigma(f, i)) == i && sigma(f, sigma_inverse(f, i)) == i;
}

constexpr uint64_t kSeed = 0x5EED;

}  // namespace

TEST_CASE("permutation: sigma and pi are bijections for every size up to 4096") {
  for (uint32_t size = 1; size <= 4096; ++size) {
    const Feistel f = make_feistel(kSeed, 4 * size, size % 7, size);
    const bool bijective = is_bijection(size, [&](uint32_t i) { return sigma(f, i); }) &&
                           is_bijection(size, [&](uint32_t j) { return permute(f, j); });
    if (!bijective) FAIL_CHECK("size " << size);
  }
}

TEST_CASE("permutation: sigma and pi are bijections for large sizes") {
  for (uint32_t size : {65536u, 65537u, (1u << 20) + 3}) {
    const Feistel f = make_feistel(kSeed, 0, 0, size);
    INFO("size " << size);
    CHECK(is_bijection(size, [&](uint32_t i) { return sigma(f, i); }));
    CHECK(is_bijection(size, [&](uint32_t j) { return permute(f, j); }));
  }
}

TEST_CASE("permutation: sigma_inverse undoes sigma, at every size and at the largest") {
  for (uint32_t size = 1; size <= 600; ++size) {
    const Feistel f = make_feistel(kSeed, 8, 0, size);
    bool exact = true;
    for (uint32_t i = 0; i < size; ++i) exact = exact && inverts(f, i);
    if (!exact) FAIL_CHECK("size " << size);
  }
  for (uint32_t size : {(1u << 20) + 3, (1u << 30) + 1, (1u << 31) - 1}) {
    const Feistel f = make_feistel(kSeed, 8, 0, size);
    bool exact = inverts(f, 0) && inverts(f, size - 1);
    for (uint64_t i = 0; i < 100000; ++i)
      exact = exact && inverts(f, static_cast<uint32_t>(i * 0x9E3779B97F4Aull % size));
    INFO("size " << size);
    CHECK(exact);
  }
}

TEST_CASE("permutation: widths of the halves") {
  struct Case {
    uint32_t size, left, right;
  };
  for (Case c : {Case{1, 4, 4}, Case{256, 4, 4}, Case{257, 4, 5}, Case{512, 4, 5}, Case{513, 5, 5}, Case{65536, 8, 8},
                 Case{65537, 8, 9}, Case{1u << 30, 15, 15}, Case{(1u << 31) - 1, 15, 16}}) {
    const Feistel f = make_feistel(kSeed, 0, 0, c.size);
    INFO("size " << c.size);
    CHECK(f.left_bits == c.left);
    CHECK(f.right_bits == c.right);
    for (uint32_t multiplier : f.a) CHECK(multiplier % 2 == 1);
  }
}

TEST_CASE("permutation: C stays in its 16 positions, is a bijection and has at most one fixed point") {
  for (uint32_t size = 1; size < 2000; ++size) {
    uint32_t fixed = 0;
    bool local = true, inverse = true;
    for (uint32_t i = 0; i < size; ++i) {
      const uint32_t next = cycle_next(i, size);
      fixed += next == i;
      local = local && next / 16 == i / 16 && (next & 6u) == (i & 6u);
      inverse = inverse && cycle_previous(next, size) == i;
    }
    INFO("size " << size);
    if (!is_bijection(size, [&](uint32_t i) { return cycle_next(i, size); })) FAIL_CHECK("no bijection, size " << size);
    if (!local || !inverse) FAIL_CHECK("size " << size);
    // A position stands alone only if it is the last one and odd in number.
    if (fixed != (size % 2 == 1 && size % 16 < 8 ? 1u : 0u)) FAIL_CHECK(fixed << " fixed points, size " << size);
  }
}

TEST_CASE("permutation: cycles of C have length 4 for sizes divisible by 16") {
  for (uint32_t size : {16u, 32u, 1600u, 65536u}) {
    bool four = true;
    for (uint32_t i = 0; i < size; ++i) {
      const uint32_t second = cycle_next(cycle_next(i, size), size);
      four = four && second != i && cycle_next(cycle_next(second, size), size) == i;
      four = four && cycle_next(i, size) == cycle_next_in_16(i) && cycle_previous(i, size) == cycle_previous_in_16(i);
    }
    INFO("size " << size);
    CHECK(four);
  }
}

TEST_CASE("permutation: pi has no fixed point for sizes divisible by 16") {
  for (uint32_t size : {16u, 64u, 4096u}) {
    const Feistel f = make_feistel(kSeed, 0, 0, size);
    uint32_t fixed = 0;
    for (uint32_t j = 0; j < size; ++j) fixed += permute(f, j) == j;
    CHECK(fixed == 0);
  }
}

// False alarm of each check: 1e-6.
TEST_CASE("permutation: a row's partner is uniform over the other rows") {
  for (uint32_t size : {16u, 64u, 256u})
    for (uint32_t row : {0u, 1u, size - 1}) {
      std::vector<int64_t> counts(size);
      for (uint64_t seed = 0; seed < 40ull * size; ++seed) ++counts[permute(make_feistel(seed, 0, 0, size), row)];
      REQUIRE(counts[row] == 0);
      counts.erase(counts.begin() + row);
      INFO("size " << size << ", row " << row);
      CHECK(std::fabs(chi_squared_z(counts)) < kNormalThreshold);
    }
}

// Small sizes show a weak round function first: the distribution over all orders. False alarm of each check: 1e-6.
TEST_CASE("permutation: sigma is uniform over all orders of small sizes") {
  for (uint32_t size : {2u, 3u, 4u, 5u}) {
    int64_t orders = 1;
    for (uint32_t i = 2; i <= size; ++i) orders *= i;
    std::vector<int64_t> counts(static_cast<std::size_t>(orders));
    for (uint64_t call = 0; call < 100ull * static_cast<uint64_t>(orders); ++call) {
      const Feistel f = make_feistel(kSeed, 4 * call, 0, size);
      std::vector<uint32_t> order(size);
      for (uint32_t i = 0; i < size; ++i) order[i] = sigma(f, i);
      std::size_t code = 0;
      for (uint32_t i = 0; i < size; ++i) {
        const auto smaller = std::count_if(order.begin() + i, order.end(), [&](uint32_t v) { return v < order[i]; });
        code = code * (size - i) + static_cast<std::size_t>(smaller);
      }
      ++counts[code];
    }
    INFO("size " << size);
    CHECK(std::fabs(chi_squared_z(counts)) < kNormalThreshold);
  }
}

// False alarm of each check: 1e-6.
TEST_CASE("permutation: neighbouring positions go to unrelated places") {
  constexpr uint32_t kSize = 65536, kCells = 64;
  std::vector<int64_t> steps(kCells), pairs(16 * 16);
  const Feistel f = make_feistel(kSeed, 4, 0, kSize);
  for (uint32_t i = 0; i + 1 < kSize; i += 2) {
    const uint32_t here = sigma(f, i), there = sigma(f, i + 1);
    ++steps[((there - here) & (kSize - 1)) / (kSize / kCells)];
    ++pairs[(here >> 12) * 16 + (there >> 12)];
  }
  CHECK(std::fabs(chi_squared_z(steps)) < kNormalThreshold);
  CHECK(std::fabs(chi_squared_z(pairs)) < kNormalThreshold);
}

// False alarm of each check: 1e-6.
TEST_CASE("permutation: blocks are independent of each other, and so are calls") {
  std::vector<int64_t> blocks(256), calls(256);
  for (uint64_t seed = 0; seed < 12800; ++seed) {
    const uint32_t first = sigma(make_feistel(seed, 0, 0, 16), 3);
    ++blocks[first * 16 + sigma(make_feistel(seed, 0, 1, 16), 3)];
    ++calls[first * 16 + sigma(make_feistel(seed, 4, 0, 16), 3)];
  }
  CHECK(std::fabs(chi_squared_z(blocks)) < kNormalThreshold);
  CHECK(std::fabs(chi_squared_z(calls)) < kNormalThreshold);
}

TEST_CASE("permutation: blocks tile the columns, and the last one may be short") {
  for (int64_t k_global : {1, 15, 64, 1000, 4096})
    for (int64_t perm_block : {0, 16, 64, 4096}) {
      int64_t next = 0;
      uint64_t index = 0;
      while (next < k_global) {
        const PermutationBlock block = permutation_block(next, perm_block, k_global);
        REQUIRE(block.first == next);
        REQUIRE(block.index == index);
        REQUIRE(block.size >= 1);
        for (int64_t column = next; column < next + block.size; ++column)
          REQUIRE(permutation_block(column, perm_block, k_global).index == index);
        next += block.size;
        ++index;
      }
      CHECK(next == k_global);
      CHECK(index == static_cast<uint64_t>(perm_block == 0 ? 1 : (k_global + perm_block - 1) / perm_block));
    }
}

TEST_CASE("permutation: a shard that is a union of blocks is closed under pi") {
  constexpr int64_t kGlobal = 1000, kBlock = 64;
  std::vector<int64_t> pi(kGlobal);
  for (int64_t column = 0; column < kGlobal; ++column) {
    const PermutationBlock block = permutation_block(column, kBlock, kGlobal);
    const Feistel f = make_feistel(kSeed, 12, block.index, block.size);
    pi[column] = block.first + permute(f, static_cast<uint32_t>(column - block.first));
  }
  for (int64_t first : {int64_t{0}, 3 * kBlock, 10 * kBlock}) {
    std::vector<int64_t> shard(pi.begin() + first, pi.begin() + std::min(first + 5 * kBlock, kGlobal)),
        expected(shard.size());
    std::sort(shard.begin(), shard.end());
    std::iota(expected.begin(), expected.end(), first);
    CHECK(shard == expected);
  }
}
