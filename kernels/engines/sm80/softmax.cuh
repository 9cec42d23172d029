// The running softmax of a warp's rows in registers: equations (3) and (7), by quads (kernels/pass).
#pragma once
#include "kernels/engines/sm80/products.cuh"
#include "kernels/pass/columns.cuh"
#include "kernels/pass/softmax.cuh"

namespace fnce::cuda::sm80 {

// The running softmax of a lane's rows: [row tile][register half]. All four lanes of a row hold the same reference; l
// is the lane's own share of the sum.
template <class C>
struct RunningRows {
  float reference[C::kMi][2];  // P = 2^(s - reference)
  float l[C::kMi][2];
  float bias;  // a reference is set this much below the row's largest score, and raised when one exceeds that by kLazy
};

// A warp's share of a column tile, and what its scores are multiplied with.
template <class C>
struct Columns {
  const float* lambda;  // of the warp's first column, in shared memory
  const float* scales;  // of the lane's first row, in shared memory
  int valid;            // columns from there on that exist
  int lane;

  // The number of register half h of row tile mi.
  FNCE_DEVICE_MEMBER float scale(int mi, int h) const { return scales[16 * mi + 8 * h]; }
};

template <class C>
FNCE_DEVICE Quad quad_of(const Columns<C>& columns, int group) {
  Quad quad;
  quad.cycle = quad.existing = quad_count(columns.lane, columns.valid - 16 * group);
  FNCE_UNROLL for (int v = 0; v < 4; ++v) quad.lambda[v] = columns.lambda[16 * group + quad_position(columns.lane, v)];
  return quad;
}

// Register v of the quad of register half h.
FNCE_DEVICE float& member(float (&s)[2][4], int h, int v) { return s[v >> 1][2 * h + (v & 1)]; }

// Raises references that a score exceeds by more than the headroom, and rescales what was summed with the old ones.
// `top` holds the lane's largest scores.
template <class C>
__device__ __forceinline__ void raise_references(RunningRows<C>& rows, Sums<C>& o, float (&top)[C::kMi][2]) {
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) {
    float factor[2];
    FNCE_UNROLL for (int h = 0; h < 2; ++h) {
      float t = top[mi][h];
      t = fmaxf(t, __shfl_xor_sync(kFullWarp, t, 1));
      t = fmaxf(t, __shfl_xor_sync(kFullWarp, t, 2));
      const float old = rows.reference[mi][h];
      const float now = raised_reference(old, t, C::kLazy, rows.bias);
      factor[h] = exp2_approx(old - now);
      rows.reference[mi][h] = now;
      rows.l[mi][h] *= factor[h];
    }
    FNCE_UNROLL for (int c = 0; c < C::kFeatures / 8; ++c) FNCE_UNROLL for (int r = 0; r < 4; ++r) o[mi][c][r] *=
        factor[r >> 1];
  }
}

// The first pass over a tile's scores mixes them (in place, unless a union needs the raw ones again), gives columns
// that do not exist their score, and raises references that must be.
template <class C>
FNCE_DEVICE void prepare_scores(const Columns<C>& columns, bool mixes, bool is_union, Scores<C>& s,
                                RunningRows<C>& rows, Sums<C>& o) {
  float top[C::kMi][2], excess = kMinusInfinityScore;
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) {
    float most = kMinusInfinityScore;
    FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g) {
      const Quad quad = quad_of<C>(columns, g);
      float x[4], mixed[4];
      FNCE_UNROLL for (int v = 0; v < 4; ++v) mixed[v] = x[v] = member(s[mi][g], h, v);
      if (mixes) mix_quad(quad, x, mixed);
      mask_quad(quad, mixed);
      most = fmaxf(most, largest(mixed));
      if (is_union) {
        mask_quad(quad, x);
        most = fmaxf(most, largest(x));
      }
      FNCE_UNROLL for (int v = 0; v < 4; ++v) member(s[mi][g], h, v) = is_union ? x[v] : mixed[v];
    }
    top[mi][h] = mul_rn(most, columns.scale(mi, h));
    excess = fmaxf(excess, top[mi][h] - rows.reference[mi][h]);
  }
  if (__any_sync(kFullWarp, excess > C::kLazy + rows.bias)) raise_references<C>(rows, o, top);
}

// A score that is not finite makes the row's sum NaN, also where its weight is 0. (Where sums are computed, the product
// of P and the negative does the same.)
template <class C>
FNCE_DEVICE void check_scores(const Scores<C>& s, RunningRows<C>& rows) {
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int g = 0; g < C::kGroups; ++g)
      FNCE_UNROLL for (int r = 0; r < 8; ++r) rows.l[mi][r % 4 / 2] += s[mi][g][r / 4][r % 4] * 0.0f;
}

// The second pass, one group at a time, makes scores weights, of which l takes the sum and O's operand the (un)mixed
// and rounded ones.
template <class C>
FNCE_DEVICE void make_weights(const Columns<C>& columns, bool mixes, bool is_union, int group, Scores<C>& s,
                              RunningRows<C>& rows, Weights<C>& w) {
  const Quad quad = quad_of<C>(columns, group);
  FNCE_UNROLL for (int mi = 0; mi < C::kMi; ++mi) FNCE_UNROLL for (int h = 0; h < 2; ++h) {
    const float scale = columns.scale(mi, h), reference = rows.reference[mi][h];
    float p[4], of_rows[4];
    FNCE_UNROLL for (int v = 0; v < 4; ++v) of_rows[v] = p[v] = member(s[mi][group], h, v);
    if (is_union) {
      mix_quad(quad, of_rows, p);
      mask_quad(quad, p);
    }
    FNCE_UNROLL for (int v = 0; v < 4; ++v) of_rows[v] = p[v] = weight(p[v], scale, reference);
    rows.l[mi][h] += (p[0] + p[1]) + (p[2] + p[3]);
    if (mixes) mix_quad_transposed(quad, p, of_rows);
    if (is_union) {
      FNCE_UNROLL for (int v = 0; v < 4; ++v) p[v] = weight(member(s[mi][group], h, v), scale, reference);
      rows.l[mi][h] += (p[0] + p[1]) + (p[2] + p[3]);
      FNCE_UNROLL for (int v = 0; v < 4; ++v) of_rows[v] += p[v];
    }
    FNCE_UNROLL for (int half = 0; half < 2; ++half) {  // columns 0-7, 8-15
      const float x0 = of_rows[2 * half], x1 = of_rows[2 * half + 1];
      const uint32_t packed = C::kIsHalf ? pack_f16(x0, x1) : pack_bf16(x0, x1);
      w.p[0][mi][2 * half + h] = packed;
      if constexpr (C::kPlanes == 2) w.p[1][mi][2 * half + h] = pack_f16(x0 - low_f16(packed), x1 - high_f16(packed));
    }
  }
}

}  // namespace fnce::cuda::sm80
