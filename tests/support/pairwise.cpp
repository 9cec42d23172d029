// Rows one after the other, each started with a pair that is still missing and completed by the values that cover most.
#include "support/pairwise.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "support/random_case.h"

namespace support {
namespace {

class Coverer {
 public:
  Coverer(const std::vector<Parameter>& parameters, const Rule& rule, uint64_t seed)
      : parameters_(parameters), rule_(rule), random_(seed), first_(parameters.size() + 1, 0) {
    for (size_t i = 0; i < parameters.size(); ++i) first_[i + 1] = first_[i] + parameters[i].values.size();
    missing_.assign(first_.back() * first_.back(), false);
  }

  CoveringArray run() {
    CoveringArray out;
    const std::vector<Choice> pairs = possible_pairs(out.impossible);
    for (const Choice& pair : pairs) {
      if (missing_in(pair) == 0) continue;
      out.rows.push_back(row_from(pair));
      strike(out.rows.back());
    }
    out.covered = static_cast<int64_t>(pairs.size());
    for (const bool missing : missing_)
      if (missing) throw std::runtime_error("a pair is not covered");
    return out;
  }

 private:
  size_t count() const { return parameters_.size(); }
  int values(size_t parameter) const { return static_cast<int>(parameters_[parameter].values.size()); }

  // The pair of value a of parameter i and value b of parameter j, i < j.
  std::vector<bool>::reference missing(size_t i, int a, size_t j, int b) {
    return missing_[(first_[i] + static_cast<size_t>(a)) * first_.back() + first_[j] + static_cast<size_t>(b)];
  }

  // Fills the open places by trying, in order; false if no values obey the rule.
  bool can_be_completed(Choice row) const { return complete(row, 0); }
  bool complete(Choice& row, size_t from) const {
    if (!rule_(row)) return false;
    while (from < count() && row[from] != kOpen) ++from;
    if (from == count()) return true;
    for (int value = 0; value < values(from); ++value) {
      row[from] = value;
      if (complete(row, from + 1)) return true;
    }
    row[from] = kOpen;
    return false;
  }

  std::vector<Choice> possible_pairs(int64_t& impossible) {
    std::vector<Choice> pairs;
    for (size_t i = 0; i < count(); ++i)
      for (size_t j = i + 1; j < count(); ++j)
        for (int a = 0; a < values(i); ++a)
          for (int b = 0; b < values(j); ++b) {
            Choice row(count(), kOpen);
            row[i] = a;
            row[j] = b;
            const bool possible = can_be_completed(row);
            missing(i, a, j, b) = possible;
            impossible += !possible;
            if (possible) pairs.push_back(row);
          }
    return pairs;
  }

  // Missing pairs that a row has.
  int missing_in(const Choice& row) {
    int sum = 0;
    for (size_t i = 0; i < count(); ++i)
      for (size_t j = i + 1; j < count(); ++j)
        if (row[i] != kOpen && row[j] != kOpen) sum += missing(i, row[i], j, row[j]);
    return sum;
  }

  void strike(const Choice& row) {
    for (size_t i = 0; i < count(); ++i)
      for (size_t j = i + 1; j < count(); ++j) missing(i, row[i], j, row[j]) = false;
  }

  // Missing pairs that a value would add.
  int gain(const Choice& row, size_t parameter, int value) {
    int sum = 0;
    for (size_t i = 0; i < count(); ++i) {
      if (i == parameter || row[i] == kOpen) continue;
      sum += i < parameter ? missing(i, row[i], parameter, value) : missing(parameter, value, i, row[i]);
    }
    return sum;
  }

  Choice row_from(Choice row) {
    std::vector<size_t> order(count());
    std::iota(order.begin(), order.end(), size_t{0});
    for (size_t i = count() - 1; i > 0; --i)
      std::swap(order[i], order[static_cast<size_t>(random_.below(static_cast<int64_t>(i) + 1))]);
    for (const size_t parameter : order) {
      if (row[parameter] != kOpen) continue;
      std::vector<std::pair<int, int>> candidates;  // minus the gain, the value
      const int start = static_cast<int>(random_.below(values(parameter)));
      for (int v = 0; v < values(parameter); ++v) {
        const int value = (start + v) % values(parameter);
        candidates.emplace_back(-gain(row, parameter, value), value);
      }
      std::stable_sort(candidates.begin(), candidates.end(), [](auto& a, auto& b) { return a.first < b.first; });
      for (const auto& [minus_gain, value] : candidates) {
        row[parameter] = value;
        if (can_be_completed(row)) break;
      }
    }
    return row;
  }

  const std::vector<Parameter>& parameters_;
  const Rule& rule_;
  Random random_;
  std::vector<size_t> first_;  // of each parameter's values among all values
  std::vector<bool> missing_;
};

}  // namespace

CoveringArray cover_pairs(const std::vector<Parameter>& parameters, const Rule& rule, uint64_t seed) {
  return Coverer(parameters, rule, seed).run();
}

}  // namespace support
