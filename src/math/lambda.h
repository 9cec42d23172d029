// The mixing coefficients of equations (2) and (3): lambda = fl(X + shift), X ~ Beta(alpha, alpha), and which random
// bits each one is made of. A lambda per call or row takes 64 bits, one per dimension or element 32. Rows are global
// rows (row_offset + i, column_offset + j), so a draw does not depend on how the data is sharded.
#pragma once

#include "math/beta.h"
#include "math/philox.h"

namespace fnce {

FNCE_HD float inverse_alpha(float alpha) { return div_rn(1.0f, alpha); }

FNCE_HD float lambda_from_block(Philox4 block, float inv_alpha, float shift) {
  return add_rn(beta_symmetric(block.word[0], block.word[1], inv_alpha), shift);
}

FNCE_HD float lambda_from_word(uint32_t word, float inv_alpha, float shift) {
  return add_rn(beta_symmetric_16(word, inv_alpha), shift);
}

FNCE_HD float sample_lambda_row(uint64_t seed, uint64_t offset, Stream stream, float inv_alpha, float shift,
                                uint64_t row) {
  return lambda_from_block(draw_block(seed, offset, stream, row), inv_alpha, shift);
}

FNCE_HD float sample_lambda_call(uint64_t seed, uint64_t offset, Stream stream, float inv_alpha, float shift) {
  return sample_lambda_row(seed, offset, stream, inv_alpha, shift, 0);
}

// Blocks of one row of lambdas per element: the index of element (row, dim) is row * blocks + dim / 4.
FNCE_HD constexpr uint64_t lambda_blocks_per_row(uint64_t d) { return (d + 3) / 4; }

FNCE_HD float sample_lambda_dimension(uint64_t seed, uint64_t offset, Stream stream, float inv_alpha, float shift,
                                      uint64_t dim) {
  return lambda_from_word(draw_block(seed, offset, stream, dim / 4).word[dim % 4], inv_alpha, shift);
}

FNCE_HD float sample_lambda_element(uint64_t seed, uint64_t offset, Stream stream, float inv_alpha, float shift,
                                    uint64_t row, uint64_t dim, uint64_t d) {
  const uint64_t index = row * lambda_blocks_per_row(d) + dim / 4;
  return lambda_from_word(draw_block(seed, offset, stream, index).word[dim % 4], inv_alpha, shift);
}

}  // namespace fnce
