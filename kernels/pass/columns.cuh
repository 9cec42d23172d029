// Columns at the level of a quad: which of them exist for a row, and how they mix, equation (3).
//
// A lane's scores of a row against 16 columns are a quad: the cycle of C through positions p, p+1, p+8, p+9 of them
// (math/permutation.h). That is how matrix units lay out their accumulators, so both directions of the mixing stay in
// the lane.
#pragma once
#include "kernels/contract/platform.cuh"
#include "math/mixing.h"

namespace fnce::cuda {

constexpr float kMinusInfinityScore =
    -__builtin_huge_valf();  // of a column that does not exist: its weight is exactly 0

struct Quad {
  float lambda[4];
  int cycle;     // members in the cycle, always the first ones: where it closes at the end of the columns
  int existing;  // members that exist for the row; exists() alone knows that these are the first ones as well
};

// A member exists if it counts for the row. This is the one notion of existence, and does not say where the cycle
// closes.
FNCE_DEVICE bool exists(const Quad& quad, int v) { return v < quad.existing; }

// x_v <- lambda_v x_v + (1 - lambda_v) x_C(v), around the cycle.
FNCE_DEVICE void mix_quad(const Quad& quad, const float (&x)[4], float (&mixed)[4]) {
  mixed[0] = mix(quad.lambda[0], x[0], quad.cycle > 1 ? x[1] : x[0]);
  mixed[1] = mix(quad.lambda[1], x[1], quad.cycle > 2 ? x[2] : x[0]);
  mixed[2] = mix(quad.lambda[2], x[2], quad.cycle > 3 ? x[3] : x[0]);
  mixed[3] = mix(quad.lambda[3], x[3], x[0]);
}

// Weights of the raw rows from those of the mixed ones: the transpose. Members outside the cycle have p = 0, and their
// rows of the tile are 0.
FNCE_DEVICE void mix_quad_transposed(const Quad& quad, const float (&p)[4], float (&raw)[4]) {
  const int last = quad.cycle - 1;
  const float last_lambda = last == 3   ? quad.lambda[3]
                            : last == 2 ? quad.lambda[2]
                            : last == 1 ? quad.lambda[1]
                                        : quad.lambda[0];
  const float last_p = last == 3 ? p[3] : last == 2 ? p[2] : last == 1 ? p[1] : p[0];
  raw[0] = mix_transposed(quad.lambda[0], p[0], last_lambda, last_p);
  raw[1] = mix_transposed(quad.lambda[1], p[1], quad.lambda[0], p[0]);
  raw[2] = mix_transposed(quad.lambda[2], p[2], quad.lambda[1], p[1]);
  raw[3] = mix_transposed(quad.lambda[3], p[3], quad.lambda[2], p[2]);
}

FNCE_DEVICE void mask_quad(const Quad& quad, float (&x)[4]) {
  FNCE_UNROLL for (int v = 0; v < 4; ++v) x[v] = exists(quad, v) ? x[v] : kMinusInfinityScore;
}

FNCE_DEVICE float largest(const float (&x)[4]) { return fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3])); }

}  // namespace fnce::cuda
