#include "core/layout.h"

#include <type_traits>

namespace fnce {
namespace {

// Calls visit(&StatsView::array, &fnce_layout::offsets) for every array that both sets have, in their order in a
// partial.
template <class Visit>
void for_each_offset(Visit&& visit) {
  visit(&StatsView::count, &fnce_layout::count);
  visit(&StatsView::mean, &fnce_layout::mean);
  visit(&StatsView::m2, &fnce_layout::m2);
  visit(&StatsView::min, &fnce_layout::min);
  visit(&StatsView::max, &fnce_layout::max);
  visit(&StatsView::n_greater, &fnce_layout::n_greater);
  visit(&StatsView::n_greater_equal, &fnce_layout::n_greater_equal);
}

}  // namespace

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
    for_each_offset(
        [&](auto array, auto offsets) { (layout.*offsets)[set] = place(rows * sizeof *(StatsView().*array)); });
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
  for (int set = 0; set < 2; ++set)
    for_each_offset([&](auto array, auto offsets) {
      auto& typed = stats[set].*array;
      typed = static_cast<std::remove_reference_t<decltype(typed)>>(at((layout.*offsets)[set]));
    });
  stats[1].m = static_cast<float*>(at(layout.unmixed_m));
  stats[1].l = static_cast<float*>(at(layout.unmixed_l));
}

}  // namespace fnce
