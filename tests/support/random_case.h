// Random inputs, and random cases over every option and shape, from one seed: the same seed gives the same case.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "support/problem.h"

namespace support {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double uniform(double low, double high) { return low + (high - low) * double(engine_() >> 11) * 0x1p-53; }
  double normal();
  int64_t below(int64_t count) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count)); }
  bool chance(double probability) { return uniform(0, 1) < probability; }
  template <class T>
  T pick(const std::vector<T>& from) {
    return from[static_cast<size_t>(below(static_cast<int64_t>(from.size())))];
  }

 private:
  std::mt19937_64 engine_;
};

enum class Style {
  kPlain,  // Gaussian rows, keys near their queries
  kSpiky,  // a few large dimensions, rows of very different length
  kTied,   // few distinct rows, so that scores repeat
  kZeros,  // some rows are exactly zero
};

std::vector<float> gaussian_rows(Random& random, int64_t rows, int64_t d);
void normalize_rows(std::vector<float>& rows, int64_t d);

// Fills x_q, x_k, queue, rounded to the case's element types, and what the problem declares GIVEN. Without
// normalisation the features are of length about 1.
void fill_inputs(Case& c, Random& random, Style style = Style::kPlain);

// Fills what equations (13)-(16) read, as the problem declares it: batch columns, ids, biases and the upstream
// gradient, [1] or [N]. After fill_inputs.
void fill_columns(Case& c, Random& random);

// Declares and fills columns beyond the queue in a random case, and asks for their outputs. A margin may come out of it
// that scores are close to: support/margin.h.
void add_columns(Case& c, uint64_t seed);

// A case over all options and shapes; sets label to a description that names everything that was chosen.
Case random_case(uint64_t seed);

// A case's options and shape in one line, and those of columns beyond the queue.
std::string describe(const Case& c);
std::string describe_columns(const Case& c);

}  // namespace support
