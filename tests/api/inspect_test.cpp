// Inspection: lambdas and permutations of a seed, shards that draw what the whole draws, descriptions, versions,
// threads.
#include <flashnce/flashnce.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/shards.h"

namespace {

using namespace support;

Case ft_case(int64_t n, int64_t k, int64_t d, uint64_t seed) {
  Case c = make_case(FNCE_PRESET_FT, n, k, d);
  c.numbers.seed = seed;
  return c;
}

bool is_bijection(const std::vector<int32_t>& permutation) {
  std::vector<bool> hit(permutation.size(), false);
  for (const int32_t j : permutation) {
    if (j < 0 || static_cast<size_t>(j) >= permutation.size() || hit[static_cast<size_t>(j)]) return false;
    hit[static_cast<size_t>(j)] = true;
  }
  return true;
}

}  // namespace

TEST_CASE("inspect: permutations are bijections, inside their blocks, with few fixed points") {
  for (const int64_t k : {0, 1, 2, 3, 15, 16, 17, 31, 100, 257, 4096, 65536, 100003}) {
    for (const int64_t block : {0, 16, 112}) {
      Case c = ft_case(1, k, 1, 5);
      c.problem.perm_block = block;
      const std::vector<int32_t> permutation = permutation_of(c);
      INFO("k " << k << " block " << block);
      CHECK(is_bijection(permutation));
      int64_t fixed = 0;
      for (int64_t j = 0; j < k; ++j) {
        fixed += permutation[static_cast<size_t>(j)] == j;
        if (block > 0) REQUIRE(permutation[static_cast<size_t>(j)] / block == j / block);
      }
      // Cycles of length 4, shorter ones where the last 16 positions are incomplete: an odd k may leave one fixed
      // point.
      CHECK(fixed <= k % 2);
    }
  }
}

TEST_CASE("inspect: lambdas lie where Beta and the shift put them") {
  for (int32_t granularity = FNCE_LAMBDA_CALL; granularity <= FNCE_LAMBDA_ELEMENT; ++granularity) {
    Case c = ft_case(64, 128, 33, 6);
    c.problem.lambda_pos = c.problem.lambda_neg = granularity;
    const std::vector<float> pos = lambda_pos_of(c), neg = lambda_neg_of(c);
    CHECK(static_cast<int64_t>(pos.size()) == flashnce::lambda_count(granularity, 64, 33));
    for (const float lambda : pos) CHECK((lambda >= 1.0f && lambda <= 2.0f));
    for (const float lambda : neg) CHECK((lambda >= 0.0f && lambda <= 1.0f));
    if (granularity != FNCE_LAMBDA_ELEMENT) continue;
    double mean = 0, variance = 0;
    for (const float lambda : pos) mean += double(lambda) / double(pos.size());
    for (const float lambda : pos)
      variance += (double(lambda) - mean) * (double(lambda) - mean) / double(pos.size() - 1);
    // Beta(2,2) + 1: mean 1.5, variance 1/20; 2112 draws, bounds of six standard errors.
    CHECK(std::abs(mean - 1.5) < 0.03);
    CHECK(std::abs(variance - 0.05) < 0.006);
  }
}

TEST_CASE("inspect: shards and row parts draw what the whole draws") {
  for (int32_t granularity = FNCE_LAMBDA_CALL; granularity <= FNCE_LAMBDA_ELEMENT; ++granularity) {
    Case whole = ft_case(20, 160, 7, 9);
    whole.problem.lambda_pos = whole.problem.lambda_neg = granularity;
    whole.problem.perm_block = 32;
    whole.problem.row_offset = 12;
    const std::vector<float> pos = lambda_pos_of(whole), neg = lambda_neg_of(whole);
    const std::vector<int32_t> permutation = permutation_of(whole);
    for (const Range& columns : ranges_of({32, 96, 0, 32})) {
      for (const Range& rows : ranges_of({3, 17})) {
        const Case part = part_of(whole, rows, columns);
        const auto sliced = [&](const std::vector<float>& lambda, Range range) {
          const int64_t unit = granularity == FNCE_LAMBDA_ELEMENT ? 7 : 1;
          if (granularity == FNCE_LAMBDA_CALL || granularity == FNCE_LAMBDA_DIMENSION) return lambda;
          return std::vector<float>(lambda.begin() + range.first * unit,
                                    lambda.begin() + (range.first + range.count) * unit);
        };
        CHECK(same_bits(lambda_pos_of(part), sliced(pos, rows)));
        CHECK(same_bits(lambda_neg_of(part), sliced(neg, columns)));
        std::vector<int32_t> local(permutation.begin() + columns.first,
                                   permutation.begin() + columns.first + columns.count);
        for (int32_t& j : local) j -= static_cast<int32_t>(columns.first);
        CHECK(permutation_of(part) == local);
      }
    }
  }
}

TEST_CASE("inspect: calls that differ draw differently") {
  std::set<std::vector<float>> seen;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const uint64_t offset : {0, 4, 8}) {
      Case c = ft_case(4, 32, 8, seed);
      c.problem.lambda_pos = FNCE_LAMBDA_ROW;
      c.numbers.offset = offset;
      seen.insert(lambda_pos_of(c));
    }
  }
  CHECK(seen.size() == 60);
}

TEST_CASE("inspect: pointers to numbers are read") {
  Case c = ft_case(8, 32, 8, 77);
  c.problem.lambda_pos = FNCE_LAMBDA_ROW;
  c.numbers.offset = 40;
  const std::vector<float> expected = lambda_pos_of(c);
  const uint64_t seed = 77, offset = 40;
  const float alpha = c.numbers.alpha_pos, shift = c.numbers.shift_pos;
  c.numbers.seed = 1;
  c.numbers.offset = 0;
  c.numbers.alpha_pos = 9;
  c.numbers.seed_pointer = &seed;
  c.numbers.offset_pointer = &offset;
  c.numbers.alpha_pos_pointer = &alpha;
  c.numbers.shift_pos_pointer = &shift;
  CHECK(same_bits(lambda_pos_of(c), expected));
}

TEST_CASE("inspect: the description names the backend, the sizes and the workspace") {
  for (const int32_t preset : {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    const Case c = make_case(preset, 33, 4097, 129);
    const Plan plan(c.problem);
    const std::string text = fnce_plan_describe(plan.get());
    INFO(text);
    CHECK(text.find(device().kind() == FNCE_CPU ? "cpu" : "cuda") != std::string::npos);
    for (const char* number : {"33", "4097", "129"}) CHECK(text.find(number) != std::string::npos);
    CHECK(text.find(std::to_string(plan.workspace_bytes())) != std::string::npos);
  }
}

TEST_CASE("inspect: versions, statuses, devices, build") {
  CHECK(fnce_version() == FNCE_VERSION);
  const std::string version = std::to_string(FNCE_VERSION_MAJOR) + "." + std::to_string(FNCE_VERSION_MINOR) + "." +
                              std::to_string(FNCE_VERSION_PATCH);
  CHECK(version == fnce_version_string());
  const struct {
    fnce_status status;
    int32_t number;
    const char* name;
  } statuses[] = {{FNCE_OK, 0, "FNCE_OK"},
                  {FNCE_INVALID_ARGUMENT, 10, "FNCE_INVALID_ARGUMENT"},
                  {FNCE_UNSUPPORTED, 20, "FNCE_UNSUPPORTED"},
                  {FNCE_NO_DEVICE, 30, "FNCE_NO_DEVICE"},
                  {FNCE_DEVICE_MISMATCH, 31, "FNCE_DEVICE_MISMATCH"},
                  {FNCE_WORKSPACE_TOO_SMALL, 40, "FNCE_WORKSPACE_TOO_SMALL"},
                  {FNCE_OUT_OF_MEMORY, 50, "FNCE_OUT_OF_MEMORY"},
                  {FNCE_DEVICE_ERROR, 60, "FNCE_DEVICE_ERROR"},
                  {FNCE_INTERNAL_ERROR, 90, "FNCE_INTERNAL_ERROR"}};
  for (const auto& s : statuses) {
    CHECK(s.status == s.number);
    CHECK(std::string(fnce_status_string(s.status)) == s.name);
  }
  for (const fnce_status unknown : {1, -1, 91, INT32_MAX})
    CHECK(std::string(fnce_status_string(unknown)) == "unknown status");
  int32_t count = -1;
  FNCE_REQUIRE_OK(fnce_device_count(FNCE_CPU, &count));
  CHECK(count == 1);
  const std::string build = fnce_build_info();
  CHECK(build.find(version) != std::string::npos);
  CHECK(build.find("cpu") != std::string::npos);
  CHECK(build.find('\n') == std::string::npos);
}

TEST_CASE("inspect: the default number of threads") {
  const int32_t before = fnce_get_threads();
  CHECK(before >= 1);
  for (const int32_t threads : {1, 7, 1024}) {
    FNCE_REQUIRE_OK(fnce_set_threads(threads));
    CHECK(fnce_get_threads() == threads);
  }
  FNCE_REQUIRE_OK(fnce_set_threads(before));
}
