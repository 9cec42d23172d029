// Which bits each lambda is made of, and that draws of different rows, dimensions and streams are independent.
// Known answers: known_answers_test.cpp.
#include "math/lambda.h"

#include "distributions.h"
#include "support/catch.h"

using namespace fnce;

namespace {

constexpr uint64_t kSeed = 31, kOffset = 40;
constexpr float kInvAlpha = 0.5f;

// Pearson correlation of two samples, as a standard normal where they are independent.
struct Correlation {
  double n = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0;
  void add(double a, double b) {
    n += 1;
    x += a;
    y += b;
    xx += a * a;
    yy += b * b;
    xy += a * b;
  }
  double z() const {
    const double covariance = xy / n - x / n * (y / n);
    return covariance / std::sqrt((xx / n - x / n * (x / n)) * (yy / n - y / n * (y / n))) * std::sqrt(n);
  }
};

}  // namespace

TEST_CASE("lambda: one per call is the row of index 0") {
  for (Stream stream : {Stream::kLambdaPos, Stream::kLambdaNeg})
    CHECK(sample_lambda_call(kSeed, kOffset, stream, kInvAlpha, 1.0f) ==
          sample_lambda_row(kSeed, kOffset, stream, kInvAlpha, 1.0f, 0));
}

TEST_CASE("lambda: the shift is added in float32, after the draw") {
  for (uint64_t row = 0; row < 1000; ++row) {
    const float plain = sample_lambda_row(kSeed, kOffset, Stream::kLambdaPos, kInvAlpha, 0.0f, row);
    const float shifted = sample_lambda_row(kSeed, kOffset, Stream::kLambdaPos, kInvAlpha, 1.0f, row);
    CHECK(shifted == plain + 1.0f);
    CHECK((shifted >= 1.0f && shifted <= 2.0f));
  }
}

TEST_CASE("lambda: a block holds four dimensions, and each row of elements starts a block") {
  for (uint64_t d : {1u, 3u, 4u, 13u, 128u}) {
    CHECK(lambda_blocks_per_row(d) == (d + 3) / 4);
    for (uint64_t row = 0; row < 5; ++row)
      for (uint64_t dim = 0; dim < d; ++dim) {
        const Philox4 block = draw_block(kSeed, kOffset, Stream::kLambdaNeg, row * ((d + 3) / 4) + dim / 4);
        const float expected = add_rn(beta_symmetric_16(block.word[dim % 4], kInvAlpha), 0.25f);
        CHECK(sample_lambda_element(kSeed, kOffset, Stream::kLambdaNeg, kInvAlpha, 0.25f, row, dim, d) == expected);
        if (row == 0)
          CHECK(sample_lambda_dimension(kSeed, kOffset, Stream::kLambdaNeg, kInvAlpha, 0.25f, dim) == expected);
      }
  }
}

TEST_CASE("lambda: the last row of the largest problem keeps its index out of the stream's bits") {
  // 2^31 - 1 rows of 2^20 dimensions: the index needs 49 bits of 56.
  const uint64_t row = (1ull << 31) - 2, d = 1ull << 20;
  const uint64_t last = row * lambda_blocks_per_row(d) + (d - 1) / 4;
  CHECK(last >> 56 == 0);
  CHECK(sample_lambda_element(kSeed, kOffset, Stream::kLambdaNeg, kInvAlpha, 0.0f, row, d - 1, d) ==
        beta_symmetric_16(draw_block(kSeed, kOffset, Stream::kLambdaNeg, last).word[3], kInvAlpha));
}

// False alarm of each check: 1e-6.
TEST_CASE("lambda: draws are uncorrelated across rows, dimensions, calls, seeds and streams") {
  Correlation rows, dims, calls, seeds, streams;
  const auto draw = [](uint64_t seed, uint64_t offset, Stream stream, uint64_t row, uint64_t dim) {
    return double{sample_lambda_element(seed, offset, stream, kInvAlpha, 0.0f, row, dim, 16)};
  };
  for (uint64_t row = 0; row < 4000; ++row)
    for (uint64_t dim = 0; dim < 15; ++dim) {
      const double x = draw(kSeed, kOffset, Stream::kLambdaPos, row, dim);
      rows.add(x, draw(kSeed, kOffset, Stream::kLambdaPos, row + 1, dim));
      dims.add(x, draw(kSeed, kOffset, Stream::kLambdaPos, row, dim + 1));
      calls.add(x, draw(kSeed, kOffset + 4, Stream::kLambdaPos, row, dim));
      seeds.add(x, draw(kSeed + 1, kOffset, Stream::kLambdaPos, row, dim));
      streams.add(x, draw(kSeed, kOffset, Stream::kLambdaNeg, row, dim));
    }
  CHECK(std::fabs(rows.z()) < kNormalThreshold);
  CHECK(std::fabs(dims.z()) < kNormalThreshold);
  CHECK(std::fabs(calls.z()) < kNormalThreshold);
  CHECK(std::fabs(seeds.z()) < kNormalThreshold);
  CHECK(std::fabs(streams.z()) < kNormalThreshold);
}
