// The vector forms of the draws equal the scalar formulas of src/math bit for bit, on the instruction set in use.
#include "cpu/kernels.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "math/lambda.h"
#include "support/catch.h"

using namespace fnce;
using namespace fnce::cpu;

namespace {

bool same_bits(float x, float y) { return std::memcmp(&x, &y, sizeof x) == 0; }

LambdaDraw draw_with(float alpha) {
  return {0x123456789abcdefULL, 4 * 77, Stream::kLambdaNeg, inverse_alpha(alpha), 0.25f};
}

}  // namespace

TEST_CASE("kernels: sigma tables equal sigma for every size, with and without cycle walking") {
  for (uint32_t size : {1u, 2u, 15u, 16u, 255u, 256u, 257u, 1000u, 4096u, 65536u, 65537u, 100003u}) {
    const Feistel f = make_feistel(42, 8, 3, size);
    std::vector<int32_t> table(size);
    const uint32_t half = size / 2;
    kernels().sigma_table(f, 1000, 0, half, table.data());
    kernels().sigma_table(f, 1000, half, size, table.data() + half);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < size; ++i) wrong += table[i] != static_cast<int32_t>(1000 + sigma(f, i));
    CAPTURE(size);
    CHECK(wrong == 0);
  }
}

TEST_CASE("kernels: lambdas per row, dimension and element equal the scalar draws") {
  for (float alpha : {0.05f, 0.5f, 1.0f, 1.6f, 50.0f}) {
    const LambdaDraw draw = draw_with(alpha);
    int wrong = 0;
    for (int64_t count : {1, 3, 64, 65, 1000}) {
      std::vector<float> rows(static_cast<size_t>(count));
      kernels().lambda_rows(draw, 12345, count, rows.data());
      for (int64_t i = 0; i < count; ++i)
        wrong += !same_bits(rows[static_cast<size_t>(i)],
                            sample_lambda_row(draw.seed, draw.offset, draw.stream, draw.inv_alpha, draw.shift,
                                              static_cast<uint64_t>(12345 + i)));
    }
    for (int64_t d : {1, 4, 13, 128, 255, 256, 257, 1000}) {
      std::vector<float> dims(static_cast<size_t>(d)), elements(static_cast<size_t>(d));
      kernels().lambda_dimensions(draw, d, dims.data());
      kernels().lambda_elements(draw, 99, d, elements.data());
      for (uint64_t c = 0; c < static_cast<uint64_t>(d); ++c) {
        wrong += !same_bits(
            dims[c], sample_lambda_dimension(draw.seed, draw.offset, draw.stream, draw.inv_alpha, draw.shift, c));
        wrong += !same_bits(elements[c], sample_lambda_element(draw.seed, draw.offset, draw.stream, draw.inv_alpha,
                                                               draw.shift, 99, c, static_cast<uint64_t>(d)));
      }
    }
    CAPTURE(alpha);
    CHECK(wrong == 0);
  }
}

TEST_CASE("kernels: packing notices a value that is not finite, wherever it stands") {
  const int64_t d = 29;
  std::vector<float> queue(static_cast<size_t>(4 * d), 0.5f), packed(4096, 0.0f), scratch(64);
  const int32_t rows[] = {3, 0, 2, 1};
  PackJob job = {};
  job.queue = queue.data();
  job.rows = rows;
  job.d = d;
  job.keys = 4;
  job.scratch = scratch.data();
  job.packed = packed.data();
  job.stride = kKeyTile * kDimBlock + 16;
  packed.resize(static_cast<size_t>(job.stride * 4));
  job.packed = packed.data();
  CHECK(kernels().pack_keys(job));
  for (size_t at = 0; at < queue.size(); ++at)
    for (float bad : {NAN, INFINITY, -INFINITY}) {
      queue[at] = bad;
      if (kernels().pack_keys(job)) FAIL("missed " << bad << " at " << at);
      queue[at] = 0.5f;
    }
  CHECK(packed[0] == 0.5f);
}
