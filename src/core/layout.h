// The one place that knows where a partial keeps what (fnce_layout), for every backend.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>

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

// One of the two sets of statistics inside a partial.
struct StatsView {
  int64_t* count = nullptr;
  float* mean = nullptr;
  float* m2 = nullptr;
  float* min = nullptr;
  float* max = nullptr;
  int64_t* n_greater = nullptr;
  int64_t* n_greater_equal = nullptr;
};

// Typed pointers into a partial; null where the layout has no such array.
struct PartialView {
  PartialView(void* base, const fnce_layout& layout);
  float* m;
  float* l;
  float* o;
  StatsView stats[2];
  float* unmixed_m;
  float* unmixed_l;
};

}  // namespace fnce
