// Merging the chunks of one panel, in order: M = max m_c, l = sum l_c 2^(m_c - M), O likewise; from panels to rows,
// from base 2 to natural logarithms.
#include "core/columns.h"
#include "cpu/simd/simd.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// factors[chunk][width] = 2^(m_c - M), corrected for the rounding of M to a natural logarithm.
void merge_maxima(const MergeJob& job) {
  const int64_t width = int64_t{job.vectors} * kLanes;
  for (int64_t i = 0; i < width; i += kLanes) {
    V top = hn::Load(df, job.m[0] + i);
    for (int c = 1; c < job.chunks; ++c) {
      // A NaN marks a chunk that is not finite: it must survive the maximum.
      const V m = hn::Load(df, job.m[c] + i);
      top = hn::IfThenElse(hn::IsNaN(top), top, hn::IfThenElse(hn::IsNaN(m), m, hn::Max(top, m)));
    }
    HWY_ALIGN float tops[kLanes], corrections[kLanes];
    hn::Store(top, df, tops);
    for (int lane = 0; lane < kLanes; ++lane) {
      tops[lane] = merged_maximum(tops[lane]);
      const double exact = natural_maximum(tops[lane]);
      const float rounded = static_cast<float>(exact);
      corrections[lane] = static_cast<float>(rounding_correction(exact, rounded));
      if (job.out_m && i + lane < job.rows) job.out_m[i + lane] = rounded;
    }
    top = hn::Load(df, tops);
    V l = hn::Zero(df);
    for (int c = 0; c < job.chunks; ++c) {
      const V f = hn::Mul(exp2_clamped(hn::Sub(hn::Load(df, job.m[c] + i), top)), hn::Load(df, corrections));
      hn::Store(f, df, job.factors + c * width + i);
      l = hn::MulAdd(f, hn::Load(df, job.l[c] + i), l);
    }
    HWY_ALIGN float sums[kLanes];
    hn::Store(l, df, sums);
    for (int lane = 0; lane < kLanes && job.out_l && i + lane < job.rows; ++lane) job.out_l[i + lane] = sums[lane];
  }
}

}  // namespace

void merge_panel(const MergeJob& job) {
  merge_maxima(job);
  if (!job.out_o) return;
  // Sixteen features at a time, so that a row's cache line is written at once.
  constexpr int64_t kDims = 16;
  const int64_t width = int64_t{job.vectors} * kLanes;
  HWY_ALIGN float block[kDims * 3 * kLanes];
  for (int64_t first = 0; first < job.dims; first += kDims) {
    const int64_t dims = job.dims - first < kDims ? job.dims - first : kDims, dim = job.first_dim + first;
    for (int64_t c = 0; c < dims; ++c)
      for (int64_t i = 0; i < width; i += kLanes) {
        V sum = hn::Zero(df);
        for (int chunk = 0; chunk < job.chunks; ++chunk)
          sum = hn::MulAdd(hn::Load(df, job.factors + chunk * width + i),
                           hn::Load(df, job.o[chunk] + (dim + c) * width + i), sum);
        hn::Store(sum, df, block + c * width + i);
      }
    for (int i = 0; i < job.rows; ++i)
      for (int64_t c = 0; c < dims; ++c) job.out_o[i * job.d + dim + c] = block[c * width + i];
  }
}

}  // namespace fnce::cpu::FNCE_ISA
