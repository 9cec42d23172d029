#include "cpu/merge.h"

#include <cstring>

#include "core/layout.h"
#include "cpu/pool.h"
#include "cpu/tiling.h"
#include "math/lse.h"
#include "math/stats.h"

namespace fnce::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;

// out <- out + from, row i of the log-sum-exp and O.
void merge_row(const PartialView& out, const PartialView& from, int64_t i, int64_t d) {
  const float m = from.m[i] > out.m[i] || from.m[i] != from.m[i] ? from.m[i] : out.m[i];
  const float keep = exp_of(out.m[i] - m), add = exp_of(from.m[i] - m);
  out.m[i] = m;
  out.l[i] = fma_rn(out.l[i], keep, from.l[i] * add);
  for (int64_t c = i * d; c < (i + 1) * d; ++c) out.o[c] = fma_rn(out.o[c], keep, from.o[c] * add);
}

void merge_statistics(const StatsView& out, const StatsView& from, int64_t i) {
  if (!out.count) return;
  const Moments<float> merged = fnce::merge(Moments<float>{out.count[i], out.mean[i], out.m2[i]},
                                            Moments<float>{from.count[i], from.mean[i], from.m2[i]});
  out.count[i] = merged.count;
  out.mean[i] = merged.mean;
  out.m2[i] = merged.m2;
  // Comparisons pass over a NaN; the mean does not, and a NaN minus itself is one.
  const float check = nan_unless_finite(merged.mean);
  out.min[i] = (from.min[i] < out.min[i] ? from.min[i] : out.min[i]) + check;
  out.max[i] = (from.max[i] > out.max[i] ? from.max[i] : out.max[i]) + check;
  out.n_greater[i] = add_wrapping(out.n_greater[i], from.n_greater[i]);
  out.n_greater_equal[i] = add_wrapping(out.n_greater_equal[i], from.n_greater_equal[i]);
}

void merge_all(const PartialView& out, const PartialView& from, int64_t i, int64_t d) {
  merge_row(out, from, i, d);
  for (int set = 0; set < 2; ++set) merge_statistics(out.stats[set], from.stats[set], i);
  if (!out.unmixed_m) return;
  const LogSum<float> both = fnce::merge(LogSum<float>{out.unmixed_m[i], out.unmixed_l[i]},
                                         LogSum<float>{from.unmixed_m[i], from.unmixed_l[i]});
  out.unmixed_m[i] = both.m;
  out.unmixed_l[i] = both.l;
}

fnce_layout layout_of(const Problem& problem) {
  const fnce_problem& p = problem.raw();
  return partial_layout(p.n, p.d, p.scores);
}

}  // namespace

void merge_partials(const Problem& problem, const void* const* partials, int32_t count, int threads, void* out) {
  const fnce_layout layout = layout_of(problem);
  if (partials[0] != out) std::memcpy(out, partials[0], layout.bytes);
  const PartialView sum(out, layout);
  const int64_t n = problem.n();
  parallel_for(threads, divide_up(n, kRowsPerTask), [&](int64_t task, int) {
    const int64_t end = (task + 1) * kRowsPerTask < n ? (task + 1) * kRowsPerTask : n;
    for (int32_t part = 1; part < count; ++part) {
      const PartialView from(const_cast<void*>(partials[part]), layout);
      for (int64_t i = task * kRowsPerTask; i < end; ++i) merge_all(sum, from, i, problem.d());
    }
  });
}

void take_rows(const Problem& from, const void* partial, int64_t first_row, const Problem& to, void* out) {
  const PartialView source(const_cast<void*>(partial), layout_of(from)), target(out, layout_of(to));
  const auto copy = [&](auto* to_array, const auto* from_array, int64_t width) {
    if (to_array)
      std::memcpy(to_array, from_array + first_row * width, static_cast<size_t>(to.n() * width) * sizeof *to_array);
  };
  copy(target.m, source.m, 1);
  copy(target.l, source.l, 1);
  copy(target.o, source.o, to.d());
  for (int set = 0; set < 2; ++set) {
    const StatsView &a = target.stats[set], &b = source.stats[set];
    copy(a.count, b.count, 1);
    copy(a.mean, b.mean, 1);
    copy(a.m2, b.m2, 1);
    copy(a.min, b.min, 1);
    copy(a.max, b.max, 1);
    copy(a.n_greater, b.n_greater, 1);
    copy(a.n_greater_equal, b.n_greater_equal, 1);
  }
  copy(target.unmixed_m, source.unmixed_m, 1);
  copy(target.unmixed_l, source.unmixed_l, 1);
}

}  // namespace fnce::cpu
