// The one place that knows where a partial keeps what (fnce_layout), for every backend.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>

#include "core/stats.h"

namespace fnce {

// sizeof(fnce_layout) of the first version; pinned.
constexpr size_t kFirstLayoutSize = 168;

constexpr uint64_t kAlignment = FNCE_ALIGNMENT;
constexpr uint64_t align_up(uint64_t bytes, uint64_t alignment = kAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Hands out aligned pieces of a block, in order. With base = nullptr it only counts, so that sizing and carving run the
// same code.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<unsigned char*>(base)) {}
  template <class T>
  T* take(uint64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ = align_up(used_ + count * sizeof(T));
    return piece;
  }
  uint64_t used() const { return used_; }

 private:
  unsigned char* base_;
  uint64_t used_ = 0;
};

// The partial of n rows and d features with the statistics of `scores` (FNCE_SCORES_* bits).
fnce_layout partial_layout(int64_t n, int64_t d, int32_t scores);

// Typed pointers into a partial; null where the layout has no such array.
struct PartialView {
  PartialView(void* base, const fnce_layout& layout);
  float* m;
  float* l;
  float* o;
  StatsView stats[2];
};

// Rows first_row .. first_row + n - 1 of `from` become the rows of `to`: calls copy(to, from, elements) for every array
// of both.
template <class Copy>
void take_rows(const PartialView& from, int64_t first_row, const PartialView& to, int64_t n, int64_t d, Copy&& copy) {
  const auto rows = [&](auto* to_array, const auto* from_array, int64_t width) {
    if (to_array) copy(to_array, from_array + first_row * width, n * width);
  };
  rows(to.m, from.m, 1);
  rows(to.l, from.l, 1);
  rows(to.o, from.o, d);
  for (int set = 0; set < 2; ++set)
    for_each_array<int64_t>([&](auto array) { rows(to.stats[set].*array, from.stats[set].*array, 1); });
}

}  // namespace fnce
