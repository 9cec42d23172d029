// The main kernels of the sm80 family by themselves: problems, what float64 makes of them, and a comparison. No plan,
// no other kernel and no code of theirs is involved; math/ is used for conversions of 16-bit numbers alone.
#pragma once
#include <string>
#include <vector>

#include "hostcuda/launch.h"
#include "kernels/engines/sm80/kernels.h"

namespace main_pass {

using namespace fnce::cuda;

// Which negatives a pass runs over.
//   kQueue    the rows as they are
//   kScores   score mixing, lambdas and order given
//   kPremixed two segments: rows that count in the loss, and rows whose scores are the unmixed statistics
enum class Columns { kQueue, kScores, kPremixed };

struct Case {
  Operand operand = Operand::kHalf;
  int tile = 0;
  sm80::Variant variant = sm80::Variant::kPlain;
  int64_t n = 1, k = 1, d = 64;
  int32_t splits = 1;
  Columns columns = Columns::kQueue;
  bool is_union = false, lambda_per_row = false;
  float lambda_low = 0.0f, lambda_high = 1.0f;
  bool sums = true;
  bool mixed_statistics = true, unmixed_statistics = true;  // of the variant with statistics
  int64_t padding = 0;                                      // elements between the rows of the queue
  bool misaligned = false;                                  // the queue begins at an odd element
  float temperature = 0.2f;
  float growth = 1.0f;   // the last row of the queue is this much longer than the first
  float mean = 0.0f;     // of the queue's features, times sqrt(D)
  float size = 1.0f;     // length of the queue's rows, about
  float planted = 0.0f;  // not 0: this number stands in one element of the queue
  uint64_t seed = 1;
};
std::string describe(const Case& c);

// Runs the kernel on the hostcuda harness with its current options and compares. What is wrong, or "". `results`: m, l
// and O of all splits as they came out.
std::string check(const Case& c, std::vector<float>* results = nullptr);

}  // namespace main_pass
