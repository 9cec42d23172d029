// The online softmax merge of one row: the partials that the splits of its columns left become one, in the order of the
// splits. With m the maximum of all, l and O are the sums of those of the partials, each times its scale factor
// exp(m_partial - m); statistics are merged by math/stats.h.
#pragma once
#include "core/columns.h"
#include "kernels/rows/elements.cuh"
#include "kernels/rows/reduce.cuh"
#include "math/lse.h"

namespace fnce::cuda {

// A row's partials, in their order: the one accumulated so far (or null), then that of every split of `from`.
struct RowPartials {
  const SplitPartials& from;
  const PartialView* accumulated;
  int64_t row;
};

FNCE_DEVICE int count_of(const RowPartials& partials) { return partials.from.count + (partials.accumulated ? 1 : 0); }

// One of them: the arrays that it stands in, its index there, and whether its maxima are in base 2.
struct RowPartial {
  const PartialView& view;
  int64_t index;
  bool base2;
};

FNCE_DEVICE RowPartial partial_at(const RowPartials& partials, int p) {
  if (partials.accumulated && p == 0) return {*partials.accumulated, partials.row, false};
  const int64_t split = p - (partials.accumulated ? 1 : 0);
  return {partials.from.view, split * partials.from.n + partials.row, partials.from.base2 != 0};
}

// The maximum of a partial in natural logarithms, kNoColumn where the row has none in it. One that is not finite
// becomes NaN, so that it does not lose to others.
FNCE_DEVICE double maximum_of(const RowPartial& partial) {
  const float m = partial.view.m[partial.index];
  if (m == (partial.base2 ? kNoColumn : kMinusInfinity)) return static_cast<double>(kNoColumn);
  if (!is_finite(m)) return nan_float();
  return partial.base2 ? natural_maximum(m) : static_cast<double>(m);
}

// ---- Log-sum-exp and O ---------------------------------------------------------------------------------------------

constexpr int kScaleFactors = kRowThreads;  // partials whose O is added up at once
constexpr int64_t kScaleFactorBytes = kScaleFactors * static_cast<int64_t>(sizeof(float));

// The maximum of a row over its partials. `correction` makes up for the rounding of m.
struct MergedMaximum {
  double exact, correction;
  float m;
};

FNCE_DEVICE MergedMaximum rounded_maximum(const SplitPartials& from, double exact) {
  exact = merged_maximum(exact);
  const float m = static_cast<float>(exact);
  return {exact, from.base2 ? rounding_correction(exact, m) : 1.0, m};
}

// What l and O of a partial are multiplied by.
FNCE_DEVICE double scale_factor(const MergedMaximum& top, const RowPartial& partial) {
  return exp_of(maximum_of(partial) - top.exact) * top.correction;
}

// Merges m and l, by the whole block: every thread gets the row's.
FNCE_DEVICE MergedMaximum merge_log_sums(const RowPartials& partials, float& l, BlockReduce reduce) {
  const int count = count_of(partials);
  double top = static_cast<double>(kNoColumn);
  for (int p = static_cast<int>(threadIdx.x); p < count; p += kRowThreads) {
    const RowPartial partial = partial_at(partials, p);
    top = MaxOrNan()(top, maximum_of(partial));
  }
  const MergedMaximum maximum = rounded_maximum(partials.from, block_max(reduce, top));
  double sum = 0;
  for (int p = static_cast<int>(threadIdx.x); p < count; p += kRowThreads) {
    const RowPartial partial = partial_at(partials, p);
    sum += scale_factor(maximum, partial) * static_cast<double>(partial.view.l[partial.index]);
  }
  l = static_cast<float>(block_sum(reduce, sum));
  return maximum;
}

// Merges O, [D]; `out` may be the accumulated partial's. `scale_factors` are kScaleFactorBytes of shared memory. Every
// thread gets 0 or NaN: a negative that is not finite may have had the weight 0 in l, and is not finite in O.
FNCE_DEVICE float merge_sums(const RowPartials& partials, const MergedMaximum& maximum, float* scale_factors,
                             float* out, BlockReduce reduce) {
  constexpr int kPiece = 16;  // sums of so many are added up on their own: errors hardly grow with the number of splits
  const int count = count_of(partials);
  const int64_t d = partials.from.d;
  for (int first = 0; first == 0 || first < count; first += kScaleFactors) {
    const int end = first + kScaleFactors < count ? first + kScaleFactors : count;
    const int mine = first + static_cast<int>(threadIdx.x);
    if (mine < end) scale_factors[threadIdx.x] = static_cast<float>(scale_factor(maximum, partial_at(partials, mine)));
    __syncthreads();
    for (int64_t c = threadIdx.x; c < d; c += kRowThreads) {
      float total = first == 0 ? 0.0f : out[c];
      for (int p = first; p < end;) {
        float piece = 0;
        const int stop = p + kPiece < end ? p + kPiece : end;
        for (; p < stop; ++p) {
          const RowPartial partial = partial_at(partials, p);
          piece = fma_rn(scale_factors[p - first], partial.view.o[partial.index * d + c], piece);
        }
        total += piece;
      }
      out[c] = total;
    }
    __syncthreads();
  }
  float check = 0;
  for (int64_t c = threadIdx.x; c < d; c += kRowThreads) check += nan_unless_finite(out[c]);
  return block_sum(reduce, check);
}

// ---- Statistics ----------------------------------------------------------------------------------------------------

// The statistics of one set of scores; the unmixed set has a log-sum-exp of its own.
template <class T>
struct SetStats {
  RowStats<T> stats;
  LogSum<T> lse;
};

FNCE_DEVICE SetStats<double> merge(const SetStats<double>& x, const SetStats<double>& y) {
  return {fnce::merge(x.stats, y.stats), fnce::merge(x.lse, y.lse)};
}

FNCE_DEVICE SetStats<double> statistics_of(const RowPartial& partial, int set) {
  const StatsView& view = partial.view.stats[set];
  SetStats<double> s = {load_stats<double>(view, partial.index), {}};
  if (set == 0 || s.stats.count == 0) return s;
  const float m = view.m[partial.index], l = view.l[partial.index];
  s.lse = partial.base2 ? natural_log_sum(m, l, s.stats.count)
                        : LogSum<double>{static_cast<double>(m), static_cast<double>(l)};
  if (!is_finite(m)) s.lse.m = nan_float();
  return s;
}

// The statistics of partials begin .. end - 1.
FNCE_DEVICE SetStats<double> merge_statistics(const RowPartials& partials, int set, int begin, int end) {
  SetStats<double> s;
  for (int p = begin; p < end; ++p) s = merge(s, statistics_of(partial_at(partials, p), set));
  return s;
}

// The same for all partials by one warp: each lane merges a run of them, then neighbouring runs are merged, in order.
// Lane 0 gets the result.
FNCE_DEVICE SetStats<double> merge_statistics_by_warp(const RowPartials& partials, int set) {
  const int count = count_of(partials), lane = static_cast<int>(threadIdx.x % 32), run = (count + 31) / 32;
  const int begin = lane * run < count ? lane * run : count;
  const int end = begin + run < count ? begin + run : count;
  const auto in_order = [](const SetStats<double>& x, const SetStats<double>& y) { return merge(x, y); };
  return reduce_to_lane_0(merge_statistics(partials, set, begin, end), in_order);
}

// The same as a partial holds them.
FNCE_DEVICE SetStats<float> rounded_statistics(const SetStats<double>& s) {
  const float m = static_cast<float>(s.lse.m);
  return {rounded_stats(s.stats), {m, static_cast<float>(s.lse.l * rounding_correction(s.lse.m, m))}};
}

}  // namespace fnce::cuda
