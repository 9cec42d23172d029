// The main kernels of the sm80 family against float64, on the hostcuda harness: every kernel over its fixed cases in
// turn under all schedules, every way to cut off the last group of columns, and random problems (FNCE_TEST_CASES of
// them).
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "hostcuda/planted/cases.h"
#include "support/catch.h"

namespace {

using namespace main_pass;
using sm80::Variant;

// One case under the next schedule of a turn.
void check_case(const Case& c, size_t turn, std::vector<float>* results = nullptr) {
  hostcuda::Options options = hostcuda::options();
  options.schedule = hostcuda::kSchedules[turn % std::size(hostcuda::kSchedules)];
  options.seed = turn + 1;
  options.quiet = true;
  hostcuda::set_options(options);
  const std::string wrong = check(c, results);
  INFO(describe(c));
  INFO(wrong);
  CHECK(wrong.empty());
}

void check_kernels(Operand operand, Variant variant) {
  size_t turn = 0;
  for (int tile = 0; tile < sm80::tiles_of(operand).count; ++tile) {
    if (variant == Variant::kStatistics && !sm80::has_statistics(operand, tile)) {
      CHECK(sm80::main_kernel(operand, tile, variant).function == nullptr);
      continue;
    }
    for (const Case& c : cases_of(operand, tile, variant)) check_case(c, turn++);
    ++turn;  // tiles meet the cases under different schedules
  }
}

constexpr Operand kOperands[] = {Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast};

}  // namespace

TEST_CASE("sm80 main kernels: columns as they are", "[long]") {
  for (const Operand operand : kOperands) check_kernels(operand, Variant::kPlain);
}

TEST_CASE("sm80 main kernels: mixed scores, float16 and bfloat16") {
  for (const Operand operand : {Operand::kHalf, Operand::kBfloat}) check_kernels(operand, Variant::kMixed);
}

TEST_CASE("sm80 main kernels: mixed scores, float32") {
  for (const Operand operand : {Operand::kHalfSplit, Operand::kHalfFast}) check_kernels(operand, Variant::kMixed);
}

TEST_CASE("sm80 main kernels: statistics", "[long]") {
  for (const Operand operand : kOperands) check_kernels(operand, Variant::kStatistics);
}

TEST_CASE("sm80 main kernels: every number of columns up to two tiles") {
  size_t turn = 0;
  for (const Operand operand : kOperands)
    for (const Case& c : tail_cases(operand, 0, 130)) check_case(c, turn++);
}

TEST_CASE("sm80 main kernels: the same bits under every schedule") {
  for (const Operand operand : kOperands)
    for (const Variant variant : {Variant::kPlain, Variant::kMixed}) {
      const Case c = cases_of(operand, 0, variant).front();
      std::vector<float> first;
      for (size_t turn = 0; turn < std::size(hostcuda::kSchedules); ++turn) {
        std::vector<float> results;
        check_case(c, turn, &results);
        if (turn == 0) first = results;
        REQUIRE(first.size() == results.size());
        CHECK(std::memcmp(first.data(), results.data(), first.size() * sizeof(float)) == 0);
      }
    }
}

TEST_CASE("sm80 main kernels: random problems") {
  const char* text = std::getenv("FNCE_TEST_CASES");
  const int count = text ? std::atoi(text) : 60;
  std::mt19937_64 random(20240611);
  for (int i = 0; i < count; ++i) check_case(random_case(random), static_cast<size_t>(i));
}
