// The committed answers of the randomness contract: every draw of the library, to the bit. reference_draws.py computes
// the same file from the text of docs/maths.md.
#include "math/lambda.h"
#include "math/permutation.h"
#include "support/catch.h"

#include <string>
#include <vector>

using namespace fnce;

namespace {

struct KnownAnswer {
  std::string kind;
  int line;
  Philox4 computed, expected;
};

// Answers of one number leave the other words 0. Out of line: the file has hundreds of them.
[[gnu::noinline]] void compare(std::vector<KnownAnswer>& all, const char* kind, int line, Philox4 computed,
                               Philox4 expected) {
  all.push_back({kind, line, computed, expected});
}

[[gnu::noinline]] Philox4 block(uint64_t seed, uint64_t offset, uint32_t stream, uint64_t index) {
  return draw_block(seed, offset, static_cast<Stream>(stream), index);
}

[[gnu::noinline]] Philox4 word(float value) { return {{float_bits(value)}}; }

[[gnu::noinline]] Philox4 word(int64_t value) { return {{static_cast<uint32_t>(value)}}; }

[[gnu::noinline]] float inverse(double alpha) { return inverse_alpha(static_cast<float>(alpha)); }

[[gnu::noinline]] float beta(uint32_t r0, uint32_t r1, double alpha) { return beta_symmetric(r0, r1, inverse(alpha)); }

[[gnu::noinline]] float beta_16(uint32_t bits, double alpha) { return beta_symmetric_16(bits, inverse(alpha)); }

struct Draw {
  uint64_t seed, offset;
  uint32_t stream;
  double alpha, shift;

  [[gnu::noinline]] float call() const {
    return sample_lambda_call(seed, offset, Stream(stream), inverse(alpha), float(shift));
  }
  [[gnu::noinline]] float row(uint64_t i) const {
    return sample_lambda_row(seed, offset, Stream(stream), inverse(alpha), float(shift), i);
  }
  [[gnu::noinline]] float dimension(uint64_t dim) const {
    return sample_lambda_dimension(seed, offset, Stream(stream), inverse(alpha), float(shift), dim);
  }
  [[gnu::noinline]] float element(uint64_t i, uint64_t dim, uint64_t d) const {
    return sample_lambda_element(seed, offset, Stream(stream), inverse(alpha), float(shift), i, dim, d);
  }
};

[[gnu::noinline]] int64_t sigma_of(uint64_t seed, uint64_t offset, uint64_t index, uint32_t size, uint32_t i) {
  return sigma(make_feistel(seed, offset, index, size), i);
}

[[gnu::noinline]] int64_t pi_of(uint64_t seed, uint64_t offset, uint64_t index, uint32_t size, uint32_t j) {
  return permute(make_feistel(seed, offset, index, size), j);
}

[[gnu::noinline]] int64_t pi_global(uint64_t seed, uint64_t offset, int64_t perm_block, int64_t k_global,
                                    int64_t column) {
  const PermutationBlock b = permutation_block(column, perm_block, k_global);
  return b.first + pi_of(seed, offset, b.index, b.size, static_cast<uint32_t>(column - b.first));
}

// Braces become an argument list again once the lines are expanded.
#define ANSWER(...) \
  {                 \
    { __VA_ARGS__ } \
  }
#define COMPARE(kind, computed, ...) compare(all, kind, __LINE__, computed, __VA_ARGS__);
#define PHILOX(c0, c1, c2, c3, k0, k1, ...) COMPARE("philox", philox4x32_10(c0, c1, c2, c3, k0, k1), __VA_ARGS__)
#define BLOCK(seed, offset, stream, index, ...) COMPARE("philox", block(seed, offset, stream, index), __VA_ARGS__)
#define BETA(r0, r1, alpha, ...) COMPARE("beta", word(beta(r0, r1, alpha)), __VA_ARGS__)
#define BETA16(bits, alpha, ...) COMPARE("beta", word(beta_16(bits, alpha)), __VA_ARGS__)
#define LAMBDA_CALL(seed, offset, stream, alpha, shift, ...) \
  COMPARE("lambda", word(Draw{seed, offset, stream, alpha, shift}.call()), __VA_ARGS__)
#define LAMBDA_ROW(seed, offset, stream, alpha, shift, row_index, ...) \
  COMPARE("lambda", word(Draw{seed, offset, stream, alpha, shift}.row(row_index)), __VA_ARGS__)
#define LAMBDA_DIMENSION(seed, offset, stream, alpha, shift, dim, ...) \
  COMPARE("lambda", word(Draw{seed, offset, stream, alpha, shift}.dimension(dim)), __VA_ARGS__)
#define LAMBDA_ELEMENT(seed, offset, stream, alpha, shift, row_index, dim, d, ...) \
  COMPARE("lambda", word(Draw{seed, offset, stream, alpha, shift}.element(row_index, dim, d)), __VA_ARGS__)
#define SIGMA(seed, offset, index, size, i, ...) \
  COMPARE("permutation", word(sigma_of(seed, offset, index, size, i)), __VA_ARGS__)
#define CYCLE(size, i, ...) COMPARE("permutation", word(int64_t{cycle_next(i, size)}), __VA_ARGS__)
#define PI(seed, offset, index, size, j, ...) \
  COMPARE("permutation", word(pi_of(seed, offset, index, size, j)), __VA_ARGS__)
#define PI_GLOBAL(seed, offset, perm_block, k_global, column, ...) \
  COMPARE("permutation", word(pi_global(seed, offset, perm_block, k_global, column)), __VA_ARGS__)

std::vector<KnownAnswer> known_answers() {
  std::vector<KnownAnswer> all;
#include "known_answers.inc"
  return all;
}

int check_all(const std::string& kind) {
  int checked = 0;
  for (const KnownAnswer& answer : known_answers()) {
    if (answer.kind != kind) continue;
    INFO("known_answers.inc, line " << answer.line);
    for (int i = 0; i < 4; ++i) CHECK(answer.computed.word[i] == answer.expected.word[i]);
    ++checked;
  }
  return checked;
}

}  // namespace

// The counts keep a line that went missing from going unnoticed.
TEST_CASE("philox: known answers, Random123's and cuRAND's") { CHECK(check_all("philox") == 10); }

TEST_CASE("beta: known answers") { CHECK(check_all("beta") == 60); }

TEST_CASE("lambda: known answers at every granularity") { CHECK(check_all("lambda") == 68); }

TEST_CASE("permutation: known answers of sigma, C and pi") { CHECK(check_all("permutation") == 196); }
