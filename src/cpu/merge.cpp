#include "cpu/merge.h"

#include "core/layout.h"
#include "math/lse.h"
#include "math/stats.h"

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
  const Moments<float> merged = fnce::merge(Moments<float>{out.count[i], out.mean[i], out.m2[i]},
                                            Moments<float>{from.count[i], from.mean[i], from.m2[i]});
  out.count[i] = merged.count;
  out.mean[i] = merged.mean;
  out.m2[i] = merged.m2;
  out.min[i] = from.min[i] < out.min[i] ? from.min[i] : out.min[i];
  out.max[i] = from.max[i] > out.max[i] ? from.max[i] : out.max[i];
  out.n_greater[i] += from.n_greater[i];
  out.n_greater_equal[i] += from.n_greater_equal[i];
}

}  // namespace

void merge_partials(const Problem& problem, const void* const* partials, int32_t count, void* out) {
  const fnce_problem& p = problem.raw();
  const fnce_layout layout = partial_layout(p.n, p.d, p.scores);
  if (partials[0] != out) __builtin_memcpy(out, partials[0], layout.bytes);
  const PartialView sum(out, layout);
  for (int32_t part = 1; part < count; ++part) {
    const PartialView from(const_cast<void*>(partials[part]), layout);
    for (int64_t i = 0; i < p.n; ++i) {
      merge_row(sum, from, i, p.d);
      for (int set = 0; set < 2; ++set) merge_statistics(sum.stats[set], from.stats[set], i);
      if (!sum.unmixed_m) continue;
      const LogSum<float> both = fnce::merge(LogSum<float>{sum.unmixed_m[i], sum.unmixed_l[i]},
                                             LogSum<float>{from.unmixed_m[i], from.unmixed_l[i]});
      sum.unmixed_m[i] = both.m;
      sum.unmixed_l[i] = both.l;
    }
  }
}

}  // namespace fnce::cpu
