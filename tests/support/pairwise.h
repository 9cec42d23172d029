// A covering array: few rows of choices in which every pair of values of two parameters occurs that can occur at all.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace support {

struct Parameter {
  std::string name;
  std::vector<int64_t> values;
};

// A row: an index into the values of each parameter; kOpen where nothing is chosen yet.
using Choice = std::vector<int>;
constexpr int kOpen = -1;

// True if a row with open places breaks no rule yet.
using Rule = std::function<bool(const Choice&)>;

struct CoveringArray {
  std::vector<Choice> rows;
  int64_t covered = 0, impossible = 0;  // pairs
};

// Greedy and deterministic. Throws std::runtime_error if a pair that can occur is left out.
CoveringArray cover_pairs(const std::vector<Parameter>& parameters, const Rule& rule, uint64_t seed);

}  // namespace support
