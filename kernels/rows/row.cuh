// One query and its key by one block of kRowThreads: normalisation and mixing, equations (1), (2), (4). Thread t works
// on columns t, t + kRowThreads, ... of every array, so that arrays need no barriers; only sums over a row do.
#pragma once
#include "kernels/rows/draws.cuh"
#include "kernels/rows/reduce.cuh"
#include "math/mixing.h"
#include "math/norm.h"

namespace fnce::cuda {

// The arrays of a row, [D] each, in shared memory or in RowsIn.scratch.
struct RowArrays {
  float *q, *k, *lambda, *o, *g_q, *g_k;
};

constexpr int64_t row_array_bytes(int64_t d) {
  return d <= kSharedFeatures ? kRowArrays * d * static_cast<int64_t>(sizeof(float)) : 0;
}

// `shared` is row_array_bytes(D) of shared memory.
FNCE_DEVICE RowArrays row_arrays(const RowsIn& rows, int64_t i, unsigned char* shared) {
  const int64_t d = rows.d;
  float* base = d <= kSharedFeatures ? reinterpret_cast<float*>(shared) : rows.scratch + i * kRowArrays * d;
  return {base, base + d, base + 2 * d, base + 3 * d, base + 4 * d, base + 5 * d};
}

// A query and its key as the block has them once they are prepared.
struct BlockRow {
  RowArrays arrays;  // q and k are normalised
  bool mixes, per_feature;
  float lambda;  // where it is one for the row
  float norm_q, norm_k, norm_q_mixed, norm_k_mixed;
  float inverse_q_mixed, inverse_k_mixed;  // 1 without renormalisation
  float pos, unmixed_pos;                  // q^.k^ and q.k
  bool finite;                             // every input was
};

struct Pair {
  float q, k;
};

FNCE_DEVICE float lambda_at(const BlockRow& s, int64_t c) { return s.per_feature ? s.arrays.lambda[c] : s.lambda; }

// Equation (8) mixes gradients as equation (2) does features.
FNCE_DEVICE Pair mix_pair(const BlockRow& s, int64_t c, Pair x) {
  const float lambda = lambda_at(s, c);
  return {mix(lambda, x.q, x.k), mix(lambda, x.k, x.q)};
}

// q^ and k^ in column c.
FNCE_DEVICE Pair mixed_pair(const BlockRow& s, int64_t c) {
  const Pair plain = {s.arrays.q[c], s.arrays.k[c]};
  if (!s.mixes) return plain;
  const Pair mixed = mix_pair(s, c, plain);
  return {mixed.q * s.inverse_q_mixed, mixed.k * s.inverse_k_mixed};
}

// Writes the row's lambdas. Threads write each other's columns: a barrier follows before any is read.
FNCE_DEVICE void fill_lambda(const RowsIn& rows, int64_t i, BlockRow& s) {
  const LambdaReader lambdas = lambda_reader(rows.lambda, rows.draws, Stream::kLambdaPos);
  const int64_t global_row = rows.row_offset + i;
  if (!s.per_feature) {
    s.lambda = lambda_of_row(lambdas, i, global_row);
    return;
  }
  for (int64_t quad = threadIdx.x; 4 * quad < rows.d; quad += kRowThreads) {
    const Four lambda = lambda_of_features(lambdas, i, global_row, quad, rows.d);
    FNCE_UNROLL for (int u = 0; u < 4; ++u) if (4 * quad + u < rows.d) s.arrays.lambda[4 * quad + u] = lambda.value[u];
  }
}

// Equation (1). Returns 0, or NaN if an input is not finite or a norm overflows.
FNCE_DEVICE float normalize_row(const RowsIn& rows, int64_t i, BlockRow& s, BlockReduce reduce) {
  float *q = s.arrays.q, *k = s.arrays.k;
  float sums[3] = {0, 0, 0};  // |x_q|^2, |x_k|^2, 0 or NaN
  sum_columns(rows.d, sums, [&](int64_t c, float(&piece)[3]) {
    const float x = load_element(rows.x_q, i * rows.d + c, rows.feature_type);
    const float y = load_element(rows.x_k, i * rows.d + c, rows.feature_type);
    q[c] = x;
    k[c] = y;
    piece[0] = fma_rn(x, x, piece[0]);
    piece[1] = fma_rn(y, y, piece[1]);
    piece[2] += x * 0.0f + y * 0.0f;
  });
  reduce_block(reduce, sums, Add());
  s.norm_q = s.norm_k = 1.0f;
  if (!rows.normalize) return sums[2];
  s.norm_q = sqrt_rn(sums[0]);
  s.norm_k = sqrt_rn(sums[1]);
  const float factor_q = checked_inverse_norm(s.norm_q, rows.epsilon);
  const float factor_k = checked_inverse_norm(s.norm_k, rows.epsilon);
  for (int64_t c = threadIdx.x; c < rows.d; c += kRowThreads) {
    q[c] *= factor_q;
    k[c] *= factor_k;
  }
  return sums[2] + 0.0f * s.norm_q + 0.0f * s.norm_k;
}

// Prepares row i of the call.
FNCE_DEVICE BlockRow prepare_row(const RowsIn& rows, int64_t i, const RowArrays& arrays, BlockReduce reduce) {
  BlockRow s = {};
  s.arrays = arrays;
  s.mixes = rows.mixes && rows.lambda.granularity != FNCE_LAMBDA_NONE;
  s.per_feature = s.mixes && is_per_feature(rows.lambda.granularity);
  s.inverse_q_mixed = s.inverse_k_mixed = s.norm_q_mixed = s.norm_k_mixed = 1.0f;
  if (s.mixes) fill_lambda(rows, i, s);
  float check = normalize_row(rows, i, s, reduce);

  const bool renormalizes = s.mixes && rows.renormalize;
  float sums[4] = {0, 0, 0, 0};  // q.k; q^.k^; or |q^|^2, |k^|^2 before they are 1; 0 or NaN
  sum_columns(rows.d, sums, [&](int64_t c, float(&piece)[4]) {
    piece[0] = fma_rn(s.arrays.q[c], s.arrays.k[c], piece[0]);
    if (!s.mixes) return;
    const Pair mixed = mixed_pair(s, c);
    piece[1] = fma_rn(mixed.q, renormalizes ? mixed.q : mixed.k, piece[1]);
    piece[2] = fma_rn(mixed.k, mixed.k, piece[2]);
    piece[3] += lambda_at(s, c) * 0.0f;
  });
  reduce_block(reduce, sums, Add());
  s.unmixed_pos = sums[0];
  s.pos = s.mixes ? sums[1] : sums[0];
  check += sums[3];
  if (renormalizes) {
    s.norm_q_mixed = sqrt_rn(sums[1]);
    s.norm_k_mixed = sqrt_rn(sums[2]);
    s.inverse_q_mixed = checked_inverse_norm(s.norm_q_mixed, rows.epsilon);
    s.inverse_k_mixed = checked_inverse_norm(s.norm_k_mixed, rows.epsilon);
    check += 0.0f * s.norm_q_mixed + 0.0f * s.norm_k_mixed;
    float pos[1] = {0};
    sum_columns(rows.d, pos, [&](int64_t c, float(&piece)[1]) {
      const Pair mixed = mixed_pair(s, c);
      piece[0] = fma_rn(mixed.q, mixed.k, piece[0]);
    });
    reduce_block(reduce, pos, Add());
    s.pos = pos[0];
  }
  s.finite = check == 0;
  return s;
}

}  // namespace fnce::cuda
