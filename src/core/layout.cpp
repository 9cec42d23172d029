#include "core/layout.h"

namespace fnce {

fnce_layout partial_layout(int64_t n, int64_t d, int32_t scores) {
  fnce_layout layout = {};
  layout.struct_size = sizeof layout;
  // The first block stays empty, so that no array lies at offset 0, which means "not gathered".
  uint64_t end = kAlignment;
  const auto rows = static_cast<uint64_t>(n);
  const auto place = [&](uint64_t bytes) {
    const uint64_t start = end;
    end = align_up(start + bytes);
    return start;
  };
  layout.m = place(rows * sizeof(float));
  layout.l = place(rows * sizeof(float));
  layout.o = place(rows * static_cast<uint64_t>(d) * sizeof(float));
  for (int set = 0; set < 2; ++set) {
    if ((scores & (set == 0 ? FNCE_SCORES_MIXED : FNCE_SCORES_UNMIXED)) == 0) continue;
    layout.count[set] = place(rows * sizeof(int64_t));
    layout.mean[set] = place(rows * sizeof(float));
    layout.m2[set] = place(rows * sizeof(float));
    layout.min[set] = place(rows * sizeof(float));
    layout.max[set] = place(rows * sizeof(float));
    layout.n_greater[set] = place(rows * sizeof(int64_t));
    layout.n_greater_equal[set] = place(rows * sizeof(int64_t));
  }
  if (scores & FNCE_SCORES_UNMIXED) {
    layout.unmixed_m = place(rows * sizeof(float));
    layout.unmixed_l = place(rows * sizeof(float));
  }
  layout.bytes = end;
  return layout;
}

PartialView::PartialView(void* base, const fnce_layout& layout) {
  const auto at = [&](uint64_t offset) -> void* {
    return offset ? static_cast<unsigned char*>(base) + offset : nullptr;
  };
  m = static_cast<float*>(at(layout.m));
  l = static_cast<float*>(at(layout.l));
  o = static_cast<float*>(at(layout.o));
  for (int set = 0; set < 2; ++set) {
    stats[set] = {static_cast<int64_t*>(at(layout.count[set])),
                  static_cast<float*>(at(layout.mean[set])),
                  static_cast<float*>(at(layout.m2[set])),
                  static_cast<float*>(at(layout.min[set])),
                  static_cast<float*>(at(layout.max[set])),
                  static_cast<int64_t*>(at(layout.n_greater[set])),
                  static_cast<int64_t*>(at(layout.n_greater_equal[set]))};
  }
  unmixed_m = static_cast<float*>(at(layout.unmixed_m));
  unmixed_l = static_cast<float*>(at(layout.unmixed_l));
}

}  // namespace fnce
