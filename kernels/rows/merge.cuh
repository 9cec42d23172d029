// Merging what the splits of the columns found for one row, in their order: log-sum-exp, O and statistics, as in a
// partial.
#pragma once
#include "core/columns.h"
#include "kernels/rows/elements.cuh"
#include "kernels/rows/reduce.cuh"
#include "math/lse.h"

namespace fnce::cuda {

// Of one row: what comes first (`kept`, a partial, or null), then every split of `from`.
struct Parts {
  const Splits& from;
  const PartialView* kept;
  int64_t row;
};

FNCE_DEVICE int count_of(const Parts& parts) { return parts.from.count + (parts.kept ? 1 : 0); }

// One of them: a view, the row in it, and whether its maxima are in base 2.
struct Part {
  const PartialView& view;
  int64_t index;
  bool base2;
};

FNCE_DEVICE Part part_of(const Parts& parts, int p) {
  if (parts.kept && p == 0) return {*parts.kept, parts.row, false};
  const int64_t split = p - (parts.kept ? 1 : 0);
  return {parts.from.view, split * parts.from.n + parts.row, parts.from.base2 != 0};
}

// The maximum of a part in natural logarithms, kNoColumn where the row has none in it. One that is not finite must not
// lose to others.
FNCE_DEVICE double maximum_of(const Part& part) {
  const float m = part.view.m[part.index];
  if (m == (part.base2 ? kNoColumn : kMinusInfinity)) return static_cast<double>(kNoColumn);
  if (!is_finite(m)) return nan_float();
  return part.base2 ? natural_maximum(m) : static_cast<double>(m);
}

// ---- Log-sum-exp and O ---------------------------------------------------------------------------------------------

constexpr int kFactors = kRowThreads;  // parts whose O is added up at once
constexpr int64_t kFactorBytes = kFactors * static_cast<int64_t>(sizeof(float));

// The maximum of a row. `correction` makes up for the rounding of m.
struct Maximum {
  double exact, correction;
  float m;
};

FNCE_DEVICE Maximum rounded_maximum(const Splits& from, double exact) {
  exact = merged_maximum(exact);
  const float m = static_cast<float>(exact);
  return {exact, from.base2 ? rounding_correction(exact, m) : 1.0, m};
}

FNCE_DEVICE double factor_of(const Maximum& top, const Part& part) {
  return exp_of(maximum_of(part) - top.exact) * top.correction;
}

// m and l of the row, by the whole block: every thread gets them.
FNCE_DEVICE Maximum merge_maxima(const Parts& parts, float& l, BlockReduce reduce) {
  const int count = count_of(parts);
  double top = static_cast<double>(kNoColumn);
  for (int p = static_cast<int>(threadIdx.x); p < count; p += kRowThreads) {
    const Part part = part_of(parts, p);
    top = MaxOrNan()(top, maximum_of(part));
  }
  const Maximum maximum = rounded_maximum(parts.from, block_max(reduce, top));
  double sum = 0;
  for (int p = static_cast<int>(threadIdx.x); p < count; p += kRowThreads) {
    const Part part = part_of(parts, p);
    sum += factor_of(maximum, part) * static_cast<double>(part.view.l[part.index]);
  }
  l = static_cast<float>(block_sum(reduce, sum));
  return maximum;
}

// O of the row, [D]; `out` may be the kept part's. `factors`: kFactorBytes of shared memory. Returns, to every thread,
// 0 or NaN: a negative that is not finite may have had the weight 0 in l, and is not finite in O.
FNCE_DEVICE float merge_sums(const Parts& parts, const Maximum& maximum, float* factors, float* out,
                             BlockReduce reduce) {
  constexpr int kPiece = 16;  // sums of so many are added up on their own: errors hardly grow with the number of splits
  const int count = count_of(parts);
  const int64_t d = parts.from.d;
  for (int first = 0; first == 0 || first < count; first += kFactors) {
    const int end = first + kFactors < count ? first + kFactors : count;
    const int mine = first + static_cast<int>(threadIdx.x);
    if (mine < end) factors[threadIdx.x] = static_cast<float>(factor_of(maximum, part_of(parts, mine)));
    __syncthreads();
    for (int64_t c = threadIdx.x; c < d; c += kRowThreads) {
      float total = first == 0 ? 0.0f : out[c];
      for (int p = first; p < end;) {
        float piece = 0;
        const int stop = p + kPiece < end ? p + kPiece : end;
        for (; p < stop; ++p) {
          const Part part = part_of(parts, p);
          piece = fma_rn(factors[p - first], part.view.o[part.index * d + c], piece);
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

// Of one set, with the log-sum-exp of the unmixed scores.
template <class T>
struct SetStats {
  RowStats<T> stats;
  LogSum<T> lse;
};

FNCE_DEVICE SetStats<double> merge(const SetStats<double>& x, const SetStats<double>& y) {
  return {fnce::merge(x.stats, y.stats), fnce::merge(x.lse, y.lse)};
}

FNCE_DEVICE SetStats<double> statistics_of(const Part& part, int set) {
  const StatsView& view = part.view.stats[set];
  SetStats<double> s = {load_stats<double>(view, part.index), {}};
  if (set == 0 || s.stats.count == 0) return s;
  const float m = view.m[part.index], l = view.l[part.index];
  s.lse = part.base2 ? natural_log_sum(m, l, s.stats.count)
                     : LogSum<double>{static_cast<double>(m), static_cast<double>(l)};
  if (!is_finite(m)) s.lse.m = nan_float();
  return s;
}

FNCE_DEVICE SetStats<double> merge_statistics(const Parts& parts, int set, int begin, int end) {
  SetStats<double> s;
  for (int p = begin; p < end; ++p) s = merge(s, statistics_of(part_of(parts, p), set));
  return s;
}

// Of one row, by one warp: each lane merges a stretch of the parts, then neighbouring stretches are merged, in order.
// Lane 0 gets the result.
FNCE_DEVICE SetStats<double> merge_statistics_by_warp(const Parts& parts, int set) {
  const int count = count_of(parts), lane = static_cast<int>(threadIdx.x % 32), stretch = (count + 31) / 32;
  const int begin = lane * stretch < count ? lane * stretch : count;
  const int end = begin + stretch < count ? begin + stretch : count;
  const auto in_order = [](const SetStats<double>& x, const SetStats<double>& y) { return merge(x, y); };
  return reduce_to_lane_0(merge_statistics(parts, set, begin, end), in_order);
}

// As a partial holds them.
FNCE_DEVICE SetStats<float> rounded_statistics(const SetStats<double>& s) {
  const float m = static_cast<float>(s.lse.m);
  return {rounded_stats(s.stats), {m, static_cast<float>(s.lse.l * rounding_correction(s.lse.m, m))}};
}

}  // namespace fnce::cuda
