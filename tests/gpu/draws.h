// The random word number i of a draw, from the headers of src/math: the same code for device and host.
#pragma once
#include "gpu/jobs.h"
#include "math/lambda.h"
#include "math/permutation.h"

namespace fnce::conformance {

FNCE_HD uint32_t draw_word(const Params& p, const Feistel& feistel, uint32_t i) {
  const Stream stream = static_cast<Stream>(p.stream);
  switch (static_cast<DrawMode>(p.mode)) {
    case DrawMode::kPhilox: return draw_block(p.seed, p.offset, stream, i / 4).word[i % 4];
    case DrawMode::kLambdaRow:
      return float_bits(sample_lambda_row(p.seed, p.offset, stream, inverse_alpha(p.alpha), p.shift, i));
    case DrawMode::kLambdaElement:
      return float_bits(sample_lambda_element(p.seed, p.offset, stream, inverse_alpha(p.alpha), p.shift, i / p.size,
                                              i % p.size, p.size));
    case DrawMode::kSigma: return sigma(feistel, i);
    case DrawMode::kSigmaInverse: return sigma_inverse(feistel, i);
    default: return permute(feistel, i);
  }
}

FNCE_HD bool draws_permutation(const Params& p) { return p.mode >= static_cast<uint32_t>(DrawMode::kSigma); }

// What thread t leaves: the words of its samples, folded into one; a single word is left as it is. Samples of a
// permutation wrap around its size.
FNCE_HD uint32_t draw_checksum(const Params& p, uint32_t t) {
  Feistel feistel{};
  if (draws_permutation(p)) feistel = make_feistel(p.seed, p.offset, 0, p.size);
  uint32_t folded = 0;
  for (uint32_t s = 0; s < p.each; ++s) {
    const uint32_t sample = t * p.each + s;
    folded = folded * 0x9E3779B1u + draw_word(p, feistel, draws_permutation(p) ? sample % p.size : sample);
  }
  return folded;
}

}  // namespace fnce::conformance
