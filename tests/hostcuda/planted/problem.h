// The inputs of a case of main_pass.h, and what float64 says the pass must find.
#pragma once
#include <memory>
#include <random>
#include <vector>

#include "hostcuda/planted/main_pass.h"

namespace main_pass {

// Memory that starts at a multiple of 16 plus `shift`, and whose end is the end of the allocation.
class Bytes {
 public:
  Bytes(size_t size, size_t shift);
  unsigned char* get() const { return start_; }

 private:
  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* start_;
};

// Rows in the memory of the device, and the values that the matrix units are to multiply.
struct Rows {
  Bytes bytes;
  int64_t count, stride;
  std::vector<double> values;  // [count][d]
};

struct Inputs {
  explicit Inputs(const Case& c);
  Case c;
  sm80::Tile tile;
  std::vector<double> anchors;        // [n][d], as multiplied
  std::vector<uint16_t> packed;       // [planes][rows][tile.d]
  std::vector<float> packed_scale;    // [rows]
  std::vector<Rows> segments;         // 1 or 2
  std::vector<int32_t> order;         // [k]
  std::vector<float> lambda, extent;  // [k] | [1]
  std::vector<float> upper[2], lower[2];
  bool wide;

  int element_size() const { return converts(c.operand) ? 4 : 2; }
  float lambda_at(int64_t position) const { return lambda[c.lambda_per_row ? static_cast<size_t>(position) : 0]; }

 private:
  void make_anchors(std::mt19937_64& random);
  void make_segment(std::mt19937_64& random, int64_t count);
  void make_tables(std::mt19937_64& random);
};

// A set of scores, equation (9), before the temperature. Ranks are bounds: scores near the threshold may count or not.
struct ExpectedStatistics {
  int64_t count = 0;
  double mean = 0, m2 = 0, min = 0, max = 0, score_error = 0;
  int64_t n_greater[2] = {}, n_greater_equal[2] = {};
  double log_sum = 0;
};

struct ExpectedRow {
  double log_sum = 0;  // of the scores / temperature
  double log_sum_error = 0;
  std::vector<double> mean;  // [d] the softmax-weighted mean of the columns
  std::vector<double> mean_error;
  ExpectedStatistics statistics[2];
};
ExpectedRow expected_row(const Inputs& in, int64_t row);

}  // namespace main_pass
