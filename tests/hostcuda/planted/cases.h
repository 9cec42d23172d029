// Problems for the main kernels: a fixed set for each of them, and random ones.
#pragma once
#include <random>
#include <vector>

#include "hostcuda/planted/main_pass.h"

namespace main_pass {

// Every path of one kernel: tails, splits, unaligned rows, no columns, unions, lambdas out of range, numbers that are
// not finite.
std::vector<Case> cases_of(Operand operand, int tile, sm80::Variant variant);

// All 1 .. `most` columns, so that the last cycles of C are cut short in every way.
std::vector<Case> tail_cases(Operand operand, int tile, int64_t most);

Case random_case(std::mt19937_64& random);

}  // namespace main_pass
