// The lambdas of a call, given or drawn: docs/maths.md, randomness contract.
#pragma once
#include "kernels/rows/elements.cuh"
#include "math/lambda.h"

namespace fnce::cuda {

FNCE_DEVICE uint64_t offset_of(const Draws& draws) { return value_of(draws.offset) + draws.offset_increment; }

// An offset that no call may have. The host cannot see what lies behind a pointer: the results become NaN.
FNCE_DEVICE bool is_wrong_offset(const Draws& draws) { return offset_of(draws) % 4 != 0; }

// Gives the lambdas of a LambdaSource, whose numbers it has read. Wrong ones make `shift` NaN, and with it every
// lambda.
struct LambdaReader {
  int32_t granularity;
  const float* given;
  uint64_t seed, offset;
  Stream stream;
  float inv_alpha, shift;
};

FNCE_DEVICE LambdaReader lambda_reader(const LambdaSource& source, const Draws& draws, Stream stream) {
  LambdaReader reader = {source.granularity, source.given, 0, 0, stream, 0, 0};
  if (source.given || source.granularity == FNCE_LAMBDA_NONE) return reader;
  const float alpha = value_of(source.alpha), shift = value_of(source.shift);
  reader.seed = value_of(draws.seed);
  reader.offset = offset_of(draws);
  reader.inv_alpha = inverse_alpha(alpha);
  const bool right = alpha > 0 && is_finite(alpha) && is_finite(shift) && reader.offset % 4 == 0;
  reader.shift = right ? shift : nan_float();
  return reader;
}

FNCE_DEVICE bool is_per_feature(int32_t granularity) {
  return granularity == FNCE_LAMBDA_DIMENSION || granularity == FNCE_LAMBDA_ELEMENT;
}

// The lambda of a call or row; `row` counts locally, `global_row` over all shards.
FNCE_DEVICE float lambda_of_row(const LambdaReader& lambdas, int64_t row, int64_t global_row) {
  const bool per_row = lambdas.granularity == FNCE_LAMBDA_ROW;
  if (lambdas.given) return lambdas.given[per_row ? row : 0];
  return sample_lambda_row(lambdas.seed, lambdas.offset, lambdas.stream, lambdas.inv_alpha, lambdas.shift,
                           per_row ? static_cast<uint64_t>(global_row) : 0);
}

// The lambdas per dimension or element of features 4*quad .. 4*quad + 3, which share a block of random bits. Those
// beyond D are of no use.
FNCE_DEVICE Four lambda_of_features(const LambdaReader& lambdas, int64_t row, int64_t global_row, int64_t quad,
                                    int64_t d) {
  const bool per_row = lambdas.granularity == FNCE_LAMBDA_ELEMENT;
  Four lambda = {{0, 0, 0, 0}};
  if (lambdas.given) {
    const float* of_row = lambdas.given + (per_row ? row * d : 0);
    FNCE_UNROLL for (int u = 0; u < 4; ++u) if (4 * quad + u < d) lambda.value[u] = of_row[4 * quad + u];
    return lambda;
  }
  const uint64_t first =
      per_row ? static_cast<uint64_t>(global_row) * lambda_blocks_per_row(static_cast<uint64_t>(d)) : 0;
  const Philox4 block = draw_block(lambdas.seed, lambdas.offset, lambdas.stream, first + static_cast<uint64_t>(quad));
  FNCE_UNROLL for (int u = 0; u < 4; ++u) lambda.value[u] =
      lambda_from_word(block.word[u], lambdas.inv_alpha, lambdas.shift);
  return lambda;
}

}  // namespace fnce::cuda
