// Packing: key tiles, mixed on the way where equation (3) cannot be applied to scores, and queries.
#include "cpu/isa/simd.h"
#include "math/mixing.h"
#include "math/norm.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

using D8 = hn::CappedTag<float, kDimBlock>;
constexpr D8 d8;
constexpr int kLanes8 = HWY_MIN(kLanes, static_cast<int>(kDimBlock));

// Writes row j of a tile and collects 0 * x, which is NaN as soon as one x is not finite.
HWY_INLINE void pack_row(const PackJob& job, const float* row, int j, hn::Vec<D8>& check, float& tail_check) {
  float* out = job.packed + j * kDimBlock;
  int64_t c = 0;
  for (; c + kDimBlock <= job.d; c += kDimBlock, out += job.stride)
    for (int u = 0; u < kDimBlock; u += kLanes8) {
      const auto x = hn::LoadU(d8, row + c + u);
      check = hn::MulAdd(x, hn::Zero(d8), check);
      hn::StoreU(x, d8, out + u);
    }
  for (; c < job.d; ++c) {
    tail_check += row[c] * 0.0f;
    out[c % kDimBlock] = row[c];
  }
}

// The mixed row of equations (3) and (4), in scratch: mix of math/mixing.h, in vectors.
const float* mix_row(const PackJob& job, int64_t row, int64_t partner) {
  const float *x = job.queue + row * job.d, *y = job.queue + partner * job.d;
  float* out = job.scratch;
  const float* lambda = nullptr;
  if (job.lambda_elements) {
    float* drawn = job.scratch + round_up(job.d, kDimBlock);
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
    const V rest = hn::Mul(hn::Sub(constant(1.0f), lam), hn::LoadU(df, y + c));
    hn::StoreU(hn::MulAdd(lam, hn::LoadU(df, x + c), rest), df, out + c);
  }
  for (; c < job.d; ++c) {
    const float lam = lambda ? lambda[c] : one;
    out[c] = mix(lam, x[c], y[c]);
  }
  if (job.renormalize) {
    scale_row(out, checked_inverse_norm(norm(out, job.d), job.epsilon), job.d, out);
  }
  return out;
}

}  // namespace

bool pack_keys(const PackJob& job) {
  auto check = hn::Zero(d8);
  float tail_check = 0;
  for (int j = 0; j < job.keys; ++j) {
    const int64_t row = job.rows[j];
    const float* source = job.partners ? mix_row(job, row, job.partners[j]) : job.queue + row * job.d;
    pack_row(job, source, j, check, tail_check);
  }
  HWY_ALIGN float checks[kDimBlock] = {};
  hn::Store(check, d8, checks);
  for (float x : checks) tail_check += x;
  return tail_check == 0;
}

// [rows,D] -> [d_padded][vectors * lanes], zero beyond rows and D.
void pack_queries(const float* anchors, int64_t d, int rows, int vectors, int64_t d_padded, float* packed) {
  const int64_t width = int64_t{vectors} * kLanes;
  for (int64_t c = 0; c < d_padded; ++c)
    for (int64_t i = 0; i < width; ++i) packed[c * width + i] = c < d && i < rows ? anchors[i * d + c] : 0.0f;
}

}  // namespace fnce::cpu::FNCE_ISA
