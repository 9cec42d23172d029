// The mixed row of equations (3) and (4), made while a tile is packed.
#pragma once
#include "cpu/simd/convert.h"
#include "math/mixing.h"
#include "math/norm.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// Row `row` of the queue in float32: in place, or converted into scratch.
template <int32_t kType>
HWY_INLINE const float* row_in_float(const PackJob& job, int64_t row, float* scratch) {
  const void* source = element_at(job.queue, row * job.d, kType);
  if constexpr (kType == FNCE_FLOAT32) return static_cast<const float*>(source);
  scale_row(source, kType, 1.0f, job.d, scratch, FNCE_FLOAT32);
  return scratch;
}

// [D] float32 in job.scratch.
template <int32_t kType>
const float* mix_row(const PackJob& job, int64_t row, int64_t partner) {
  const float* x = row_in_float<kType>(job, row, job.scratch);
  const float* y = row_in_float<kType>(job, partner, job.scratch + job.d_padded);
  float* out = job.scratch;
  const float* lambda = nullptr;
  if (job.lambda_elements) {
    float* drawn = job.scratch + 2 * job.d_padded;
    lambda_elements(*job.lambda_elements, job.first_row + row, job.d, drawn);
    lambda = drawn;
  } else if (job.lambda_given) {
    lambda = job.lambda_given + row * job.d;
  } else if (job.lambda_dims) {
    lambda = job.lambda_dims;
  }
  const float one = job.lambda_call ? job.lambda_call[0] : job.lambda_rows ? job.lambda_rows[row] : 0.0f;
  int64_t c = 0;
  for (; c + kLanes <= job.d; c += kLanes) {
    const V lam = lambda ? hn::LoadU(df, lambda + c) : constant(one);
    hn::StoreU(mix_lanes(lam, hn::LoadU(df, x + c), hn::LoadU(df, y + c)), df, out + c);
  }
  for (; c < job.d; ++c) {
    const float lam = lambda ? lambda[c] : one;
    out[c] = mix(lam, x[c], y[c]);
  }
  if (job.renormalize) {
    const float factor = checked_inverse_norm(norm(out, FNCE_FLOAT32, job.d), job.epsilon);
    scale_row(out, FNCE_FLOAT32, factor, job.d, out, FNCE_FLOAT32);
  }
  return out;
}

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
