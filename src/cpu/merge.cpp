#include "cpu/merge.h"

#include <cstring>

#include "core/layout.h"
#include "cpu/pool.h"
#include "cpu/tiling.h"
#include "math/lse.h"

namespace fnce::cpu {
namespace {

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
  store_stats(rounded_stats(fnce::merge(load_stats<float>(out, i), load_stats<float>(from, i))), out, i);
  if (!out.m) return;
  const LogSum<float> both = fnce::merge(load_log_sum<float>(out.m, out.l, i), load_log_sum<float>(from.m, from.l, i));
  out.m[i] = both.m;
  out.l[i] = both.l;
}

void merge_all(const PartialView& out, const PartialView& from, int64_t i, int64_t d) {
  merge_row(out, from, i, d);
  for (int set = 0; set < 2; ++set) merge_statistics(out.stats[set], from.stats[set], i);
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
  parallel_rows(threads, problem.n(), [&](int64_t i, int) {
    for (int32_t part = 1; part < count; ++part)
      merge_all(sum, PartialView(const_cast<void*>(partials[part]), layout), i, problem.d());
  });
}

void take_rows(const Problem& from, const void* partial, int64_t first_row, const Problem& to, void* out) {
  const PartialView source(const_cast<void*>(partial), layout_of(from)), target(out, layout_of(to));
  fnce::take_rows(source, first_row, target, to.n(), to.d(), [](auto* to_array, const auto* from_array, int64_t count) {
    std::memcpy(to_array, from_array, static_cast<size_t>(count) * sizeof *to_array);
  });
}

}  // namespace fnce::cpu
