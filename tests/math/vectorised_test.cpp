// The compiler's vectorised and fused-multiply-add versions of the draws equal the scalar ones to the bit: the
// functions below are the same source, compiled for what the CPU may have. A contracted a*b + c would show here.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif
#include "math/lambda.h"
#include "math/permutation.h"
#include "support/catch.h"

#include <vector>

using namespace fnce;

namespace {

constexpr uint64_t kSeed = 0xFEEDFACE12345678ull, kOffset = 1 << 20;

struct Draws {
  std::vector<uint32_t> blocks, permuted;
  std::vector<float> rows, elements;
  explicit Draws(std::size_t n) : blocks(4 * n), permuted(n), rows(n), elements(4 * n) {}
};

FNCE_HD void draw(Draws& draws, const Feistel& f, float inv_alpha) {
  const uint32_t n = static_cast<uint32_t>(draws.rows.size());
  uint32_t* __restrict blocks = draws.blocks.data();
  uint32_t* __restrict permuted = draws.permuted.data();
  float* __restrict rows = draws.rows.data();
  float* __restrict elements = draws.elements.data();
  for (uint32_t i = 0; i < n; ++i) {
    const Philox4 block = draw_block(kSeed, kOffset, Stream::kLambdaNeg, i);
    for (uint32_t w = 0; w < 4; ++w) blocks[4 * i + w] = block.word[w];
  }
  for (uint32_t i = 0; i < n; ++i) permuted[i] = feistel_once(f, i);
  for (uint32_t i = 0; i < n; ++i) rows[i] = sample_lambda_row(kSeed, kOffset, Stream::kLambdaNeg, inv_alpha, 0.0f, i);
  for (uint32_t i = 0; i < 4 * n; ++i) elements[i] = lambda_from_word(blocks[i], inv_alpha, 1.0f);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target("avx2,fma"))) void draw_avx2(Draws& draws, const Feistel& f, float inv_alpha) {
  draw(draws, f, inv_alpha);
}
__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))) void draw_avx512(Draws& draws, const Feistel& f,
                                                                                   float inv_alpha) {
  draw(draws, f, inv_alpha);
}
#endif

__attribute__((noinline)) void draw_default(Draws& draws, const Feistel& f, float inv_alpha) {
  draw(draws, f, inv_alpha);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
bool same_bits(const std::vector<float>& x, const std::vector<float>& y) {
  for (std::size_t i = 0; i < x.size(); ++i)
    if (float_bits(x[i]) != float_bits(y[i])) return false;
  return x.size() == y.size();
}

void compare(void (*variant)(Draws&, const Feistel&, float)) {
  const Feistel f = make_feistel(kSeed, kOffset, 0, 50000);
  for (float alpha : {0.05f, 0.5f, 1.0f, 1.6f, 2.0f, 50.0f}) {
    Draws expected(20000), computed(20000);
    draw_default(expected, f, inverse_alpha(alpha));
    variant(computed, f, inverse_alpha(alpha));
    INFO("alpha " << alpha);
    CHECK(computed.blocks == expected.blocks);
    CHECK(computed.permuted == expected.permuted);
    CHECK(same_bits(computed.rows, expected.rows));
    CHECK(same_bits(computed.elements, expected.elements));
  }
}
#endif

}  // namespace

TEST_CASE("vectorised: loops equal single draws") {
  const Feistel f = make_feistel(kSeed, kOffset, 0, 50000);
  Draws draws(1000);
  draw_default(draws, f, 0.625f);
  for (uint32_t i = 0; i < 1000; ++i) {
    volatile uint64_t row = i;
    CHECK(draws.rows[i] == sample_lambda_row(kSeed, kOffset, Stream::kLambdaNeg, 0.625f, 0.0f, row));
    CHECK(draws.elements[i] ==
          sample_lambda_element(kSeed, kOffset, Stream::kLambdaNeg, 0.625f, 1.0f, row / 4, row % 4, 4));
    CHECK(draws.permuted[i] == feistel_once(f, static_cast<uint32_t>(row)));
  }
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
TEST_CASE("vectorised: AVX2 equals the default instruction set") {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    WARN("not run: this CPU has no AVX2");
    return;
  }
  compare(draw_avx2);
}

TEST_CASE("vectorised: AVX-512 equals the default instruction set") {
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl")) {
    WARN("not run: this CPU has no AVX-512");
    return;
  }
  compare(draw_avx512);
}
#endif
