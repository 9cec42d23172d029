// A batch of pairs, equation (17), as a test sees it: host arrays in, host arrays out, and the truth. The oracle knows
// no symmetric loss: the truth is half of either direction, a loss against batch columns each.
#pragma once

#include <cstdint>
#include <vector>

#include "support/compare.h"
#include "support/problem.h"

namespace support {

// Side 0 is a, side 1 is b.
struct PairsCase {
  fnce_problem problem;
  float temperature = 0.2f, epsilon = 1e-12f;
  std::vector<float> x[2];      // [N,D] rounded to the feature type
  std::vector<float> weight;    // [N] or empty
  std::vector<int64_t> ids[2];  // [N] with id_mask
  std::vector<float> bias[2];   // [N] with column_bias
  std::vector<float> upstream{1.0f};
  bool temperature_by_pointer = false;
  bool want[3] = {true, true, true};  // da, db, dtemperature
};

struct PairsOutputs {
  std::vector<float> loss, log_sum_exp[2], gradient[2], dtemperature;
};

// `n` pairs of `d` features, near each other, of the tests' device.
PairsCase make_pairs(int64_t n, int64_t d, uint64_t seed);
// Fills features, ids and biases as the problem declares them.
void fill_pairs(PairsCase& c, uint64_t seed);

// fnce_symmetric and its backward pass, with workspaces full of garbage; checks of memory as in run_loss.
PairsOutputs run_pairs(const PairsCase& c, unsigned char garbage = 0xFF);
bool same_bits(const PairsOutputs& a, const PairsOutputs& b);

struct PairsTruth {
  explicit PairsTruth(const PairsCase& c);
  Truth from[2];  // a to b, b to a
};

// Everything that the case asks for, by the policy of support/tolerance.h.
Verdict compare_pairs(const PairsCase& c, const PairsTruth& truth, const PairsOutputs& actual);

}  // namespace support
