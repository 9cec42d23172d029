// Merging what the splits of the keys found for one row, in their order: log-sum-exp, O and statistics, as in a partial.
#pragma once
#include "kernels/rows/elements.cuh"
#include "kernels/rows/reduce.cuh"
#include "math/lse.h"
#include "math/stats.h"

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

// A maximum in natural logarithms. One that is still at its start stays there; one that is not finite must not lose to it.
FNCE_DEVICE double natural_maximum(const Part& part, float m) {
  if (!is_finite(m)) return nan_float();
  if (!part.base2) return static_cast<double>(m);
  return m <= kMinusInfinity ? static_cast<double>(kMinusInfinity) : static_cast<double>(m) * kLn2;
}

// ---- Log-sum-exp and O ---------------------------------------------------------------------------------------------------

constexpr int kFactors = kRowThreads;  // parts whose O is added up at once
constexpr int64_t kFactorBytes = kFactors * static_cast<int64_t>(sizeof(float));

// The maximum of a row. `correction` makes up for the rounding of m.
struct Maximum {
  double exact, correction;
  float m;
};

FNCE_DEVICE Maximum rounded_maximum(const Splits& from, double exact) {
  // Columns, but every score lay below the start of the maximum: far outside what float32 can weigh.
  if (from.base2 && from.has_columns && exact <= static_cast<double>(kMinusInfinity)) exact = nan_float();
  const float m = static_cast<float>(exact);
  return {exact, from.base2 ? rounding_correction(exact, m) : 1.0, m};
}

FNCE_DEVICE double factor_of(const Maximum& top, const Part& part) {
  return exp_of(natural_maximum(part, part.view.m[part.index]) - top.exact) * top.correction;
}

// m and l of the row, by the whole block: every thread gets them.
FNCE_DEVICE Maximum merge_maxima(const Parts& parts, float& l, BlockReduce reduce) {
  const int count = count_of(parts);
  double top = static_cast<double>(kMinusInfinity);
  for (int p = static_cast<int>(threadIdx.x); p < count; p += kRowThreads) {
    const Part part = part_of(parts, p);
    top = MaxOrNan()(top, natural_maximum(part, part.view.m[part.index]));
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

// O of the row, [D]; `out` may be the kept part's. `factors`: kFactorBytes of shared memory. Returns, to every thread, 0 or NaN: a
// negative that is not finite may have had the weight 0 in l, and is not finite in O.
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

// ---- Statistics ----------------------------------------------------------------------------------------------------------

struct StatsSum {
  Moments<double> moments;
  float low, high;
  int64_t greater, greater_equal;
  LogSum<double> sum;  // of the unmixed scores
};

FNCE_DEVICE StatsSum empty_statistics() {
  StatsSum s = {};
  s.low = infinity_float();
  s.high = -infinity_float();
  return s;
}

FNCE_DEVICE StatsSum merge(const StatsSum& x, const StatsSum& y) {
  StatsSum s;
  s.moments = fnce::merge(x.moments, y.moments);
  s.low = y.low < x.low ? y.low : x.low;
  s.high = y.high > x.high ? y.high : x.high;
  s.greater = add_wrapping(x.greater, y.greater);
  s.greater_equal = add_wrapping(x.greater_equal, y.greater_equal);
  s.sum = fnce::merge(x.sum, y.sum);
  return s;
}

FNCE_DEVICE StatsSum statistics_of(const Part& part, int set) {
  const StatsView& view = part.view.stats[set];
  const int64_t i = part.index;
  StatsSum s = empty_statistics();
  s.moments = {view.count[i], static_cast<double>(view.mean[i]), static_cast<double>(view.m2[i])};
  s.low = view.min[i];
  s.high = view.max[i];
  s.greater = view.n_greater[i];
  s.greater_equal = view.n_greater_equal[i];
  if (set == 0 || s.moments.count == 0) return s;
  const float m = part.view.unmixed_m[i];
  s.sum = {natural_maximum(part, m), static_cast<double>(part.view.unmixed_l[i])};
  // As for the maximum of the loss.
  if (part.base2 && m <= kMinusInfinity) s.sum.m = nan_float();
  return s;
}

FNCE_DEVICE StatsSum merge_statistics(const Parts& parts, int set, int begin, int end) {
  StatsSum s = empty_statistics();
  for (int p = begin; p < end; ++p) s = merge(s, statistics_of(part_of(parts, p), set));
  return s;
}

// Of one row, by one warp: each lane merges a stretch of the parts, then neighbouring stretches are merged, in order. Lane 0 gets
// the result.
FNCE_DEVICE StatsSum merge_statistics_by_warp(const Parts& parts, int set) {
  const int count = count_of(parts), lane = static_cast<int>(threadIdx.x % 32), stretch = (count + 31) / 32;
  const int begin = lane * stretch < count ? lane * stretch : count;
  const int end = begin + stretch < count ? begin + stretch : count;
  const auto in_order = [](const StatsSum& x, const StatsSum& y) { return merge(x, y); };
  return reduce_to_lane_0(merge_statistics(parts, set, begin, end), in_order);
}

// The statistics of a row as a partial holds them.
struct RowStats {
  int64_t count, n_greater, n_greater_equal;
  float mean, m2, min, max, unmixed_m, unmixed_l;
};

FNCE_DEVICE RowStats row_statistics(const StatsSum& s) {
  // Comparisons pass over a NaN; the mean does not.
  const bool finite = is_finite(s.moments.mean);
  const float m = static_cast<float>(s.sum.m);
  return {s.moments.count,
          s.greater,
          s.greater_equal,
          static_cast<float>(s.moments.mean),
          static_cast<float>(s.moments.m2),
          finite ? s.low : nan_float(),
          finite ? s.high : nan_float(),
          m,
          static_cast<float>(s.sum.l * rounding_correction(s.sum.m, m))};
}

}  // namespace fnce::cuda
