// Score statistics of a warp's rows, equation (9).
#pragma once
#include "kernels/engines/sm80/softmax.cuh"
#include "kernels/pass/statistics.cuh"

namespace fnce::cuda::sm80 {

// A warp's rows, [row tile][register half]. The counts of both sets stand beside them until the last tile, because all
// rows of a lane see the same columns while there is no mask: one count per row and set would make the widest tiles
// spill.
template <class C>
struct Statistics {
  int32_t counts[2];
  RowScores rows[C::kMi][2];
};

// What a lane has seen of one row.
template <class C>
FNCE_DEVICE RowScores scores_of(const Statistics<C>& statistics, int mi, int h) {
  RowScores row = statistics.rows[mi][h];
  FNCE_UNROLL for (int set = 0; set < 2; ++set) row.sets[set].count = statistics.counts[set];
  return row;
}

template <class C>
FNCE_DEVICE void start_statistics(const MainParams& p, const Shared<C>& shared, Statistics<C>& out) {
  for (int i = static_cast<int>(threadIdx.x); i < C::kRows; i += C::kThreads) {
    const uint32_t row = blockIdx.x * C::kRows + static_cast<uint32_t>(i);
    shared.unit()[i] = p.packed.scale[row];
    FNCE_UNROLL for (int set = 0; set < 2; ++set) {
      const bool exists = p.statistics[set] && row < p.n;
      shared.upper(set)[i] = exists ? p.thresholds.upper[set][row] : 0.0f;
      shared.lower(set)[i] = exists ? p.thresholds.lower[set][row] : 0.0f;
    }
  }
  out.counts[0] = out.counts[1] = 0;
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) out.rows[mi][h] = RowScores();
}

// Adds the scores of one tile, before prepare_scores changes them. `segment` is the tile's.
template <class C>
FNCE_DEVICE void gather_statistics(const MainParams& p, const Segment& segment, const Columns<C>& columns, bool mixes,
                                   bool is_union, const Shared<C>& shared, const Place<C>& place, Scores<C>& s,
                                   Statistics<C>& out) {
  const bool of_loss = p.statistics[0] && segment.in_loss, both = of_loss && is_union;
  FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g) {
    const Quad quad = quad_of<C>(columns, g);
    const int count = quad.existing;
    if (count > 0) {
      FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) {
        const int row = place.row(mi, h);
        RowScores& scores = out.rows[mi][h];
        const float unit = shared.unit()[row];
        float raw[4], mixed[4];
        FNCE_UNROLL for (int v = 0; v < 4; ++v) mixed[v] = raw[v] = member(s[mi][g], h, v);
        if (segment.unmixed) add_log_sum(quad, raw, columns.scale(mi, h), scores.unmixed);
        if (mixes) mix_quad(quad, raw, mixed);
        FNCE_UNROLL for (int v = 0; v < 4; ++v) {
          raw[v] *= unit;
          mixed[v] *= unit;
        }
        const float upper = shared.upper(0)[row], lower = shared.lower(0)[row];
        if (of_loss) add_quad(quad, mixed, out.counts[0], upper, lower, scores.sets[0]);
        if (both) add_quad(quad, raw, out.counts[0] + count, upper, lower, scores.sets[0]);
        if (segment.unmixed)
          add_quad(quad, raw, out.counts[1], shared.upper(1)[row], shared.lower(1)[row], scores.sets[1]);
      }
    }
    out.counts[0] += of_loss ? (both ? 2 * count : count) : 0;
    out.counts[1] += segment.unmixed ? count : 0;
  }
}

}  // namespace fnce::cuda::sm80
