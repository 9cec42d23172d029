// Host models of the PTX instructions that the sm80 family uses: cp.async, ldmatrix, mma.sync, ex2.approx. Fragments
// are laid out as the PTX ISA's tables of mma.m16n8k16 and ldmatrix say.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "hostcuda/device.h"

namespace hostcuda {

// cp.async.cg.shared.global, 16 bytes; with valid = false they become zeros and nothing is read. Until the wait that
// retires its group the destination holds NaNs, and AddressSanitizer reports any access to it.
void cp_async_16(void* shared, const void* global, bool valid);
// cp.async.commit_group, cp.async.wait_group: each thread has its own groups.
void cp_async_commit();
void cp_async_wait(int leave);

// The address of one row of 8x8 16-bit elements, as all lanes hand them in. Ends the launch where it is not one.
const Slot* ldmatrix_rows(const void* row, Op op);
inline const unsigned char* row_of(const Slot& slot) {
  const unsigned char* row;
  std::memcpy(&row, slot.bytes, sizeof row);
  return row;
}

// ldmatrix.sync.aligned.m8n8.x4.shared.b16: lane 8 m + i names row i of matrix m; lane l receives elements
// (l/4, 2 (l%4)) and (l/4, 2 (l%4) + 1) of every matrix, the first in the low half.
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  const Slot* rows = ldmatrix_rows(row, Op::kLdmatrix);
  const unsigned lane = context().lane;
  for (unsigned m = 0; m < 4; ++m) std::memcpy(&r[m], row_of(rows[8 * m + lane / 4]) + 4 * (lane % 4), sizeof r[m]);
}

// With .trans the matrices arrive transposed: lane l receives elements (2 (l%4), l/4) and (2 (l%4) + 1, l/4).
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  const Slot* rows = ldmatrix_rows(row, Op::kLdmatrixTrans);
  const unsigned lane = context().lane;
  for (unsigned m = 0; m < 4; ++m) {
    uint16_t element[2];
    for (unsigned i = 0; i < 2; ++i)
      std::memcpy(&element[i], row_of(rows[8 * m + 2 * (lane % 4) + i]) + 2 * (lane / 4), sizeof element[i]);
    r[m] = element[0] | uint32_t{element[1]} << 16;
  }
}

// mma.sync.aligned.m16n8k16.row.col.f32.T.T.f32, d += a * b. With g = lane / 4, t = lane % 4 (two elements a register,
// the lower column or row first):
//   a[0] (g, 2t)  a[1] (g + 8, 2t)  a[2] (g, 2t + 8)  a[3] (g + 8, 2t + 8)
//   b0 (k = 2t, n = g)  b1 (k = 2t + 8, n = g)
//   d[0], d[1] (g, 2t), (g, 2t + 1)  d[2], d[3] (g + 8, 2t), (g + 8, 2t + 1)
// Sums cut off digits as the matrix units of Ampere do, or, with FNCE_HOSTCUDA_MATRIX_UNITS=hopper, of Hopper
// (runtime/mma.cpp).
void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

// ex2.approx.ftz.f32, rounded correctly: denormal operands and results are flushed to zero.
inline float exp2_approx(float x) {
  const float result = std::exp2(std::fabs(x) < FLT_MIN ? 0.0f : x);
  return result < FLT_MIN ? 0.0f : result;
}

}  // namespace hostcuda
