// The vector forms of the draws equal the scalar formulas of src/math bit for bit, on the instruction set in use.
#include "cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/columns.h"
#include "core/types.h"
#include "math/half.h"
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
  const int64_t d = 45;
  const int32_t rows[] = {3, 0, 2, 1}, partners[] = {0, 3, 1, 2};
  const float lambda = 0.25f;
  for (int32_t type : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
    for (bool mixing : {false, true}) {
      const TileKernels& tiles = kernels().tiles_for(type);
      PackJob job = {};
      job.d = d;
      job.d_padded = round_up(d, tiles.shape.dim_block);
      job.type = type;
      job.rows = rows;
      job.partners = mixing ? partners : nullptr;
      job.lambda_call = &lambda;
      job.columns = 4;
      std::vector<float> values(static_cast<size_t>(4 * d), 0.5f), queue(values.size()),
          scratch(static_cast<size_t>(3 * job.d_padded));
      std::vector<uint64_t> packed(static_cast<size_t>(tiles.packed_bytes(job.d_padded)) / 8 + 9);
      job.queue = queue.data();
      job.scratch = scratch.data();
      // Packed tiles start on a cache line.
      job.packed = packed.data() + (64 - reinterpret_cast<uintptr_t>(packed.data()) % 64) % 64 / 8;
      const auto finite = [&] {
        kernels().scale_row(values.data(), FNCE_FLOAT32, 1.0f, 4 * d, queue.data(), type);
        return tiles.pack_columns(job);
      };
      CAPTURE(type, mixing);
      CHECK(finite());
      for (size_t at = 0; at < values.size(); ++at)
        for (float bad : {NAN, INFINITY, -INFINITY}) {
          values[at] = bad;
          if (finite()) FAIL("missed " << bad << " at " << at);
          values[at] = 0.5f;
        }
      CHECK(finite());
    }
}

TEST_CASE("kernels: every float16 and bfloat16 is read as the scalar formula reads it") {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> out(halves.size());
  for (int32_t type : {FNCE_FLOAT16, FNCE_BFLOAT16}) {
    // An odd number of elements from an odd place: vectors and single ones.
    const int64_t count = 65533;
    kernels().scale_row(halves.data() + 1, type, 1.0f, count, out.data(), FNCE_FLOAT32);
    int wrong = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t bits = halves[static_cast<size_t>(i + 1)];
      const float expected = type == FNCE_FLOAT16 ? half_to_float(bits) : bfloat_to_float(bits);
      const float actual = out[static_cast<size_t>(i)];
      wrong += std::isnan(expected) ? !std::isnan(actual) : !same_bits(expected, actual);
    }
    CAPTURE(type);
    CHECK(wrong == 0);
  }
}

TEST_CASE("kernels: rounding to float16 and bfloat16 equals the scalar formula") {
  std::vector<float> x;
  for (uint32_t i = 0; i < (1u << 20); ++i) x.push_back(bits_float(i * 4099u));
  for (uint32_t half = 0; half < 65536; ++half) {
    // Ties and their neighbours.
    const float value = half_to_float(static_cast<uint16_t>(half));
    for (uint32_t step : {0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u})
      x.push_back(bits_float(float_bits(value) + step));
  }
  std::vector<uint16_t> out(x.size());
  for (int32_t type : {FNCE_FLOAT16, FNCE_BFLOAT16}) {
    kernels().scale_row(x.data(), FNCE_FLOAT32, 1.0f, static_cast<int64_t>(x.size()), out.data(), type);
    int wrong = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const uint16_t expected = type == FNCE_FLOAT16 ? float_to_half(x[i]) : float_to_bfloat(x[i]);
      const float back = type == FNCE_FLOAT16 ? half_to_float(out[i]) : bfloat_to_float(out[i]);
      wrong += std::isnan(x[i]) ? !std::isnan(back) : out[i] != expected;
    }
    CAPTURE(type);
    CHECK(wrong == 0);
  }
}

TEST_CASE("kernels: chunks of a panel are merged row by row, whatever columns each row has in them") {
  const int lanes = kernels().float32.shape.lanes;
  const int64_t width = lanes, d = 3;
  const auto size = static_cast<size_t>(width);
  // Row 0 has columns in both chunks, row 1 in the second alone, row 2 in none, row 3 only such as lie below the start.
  std::vector<float> o[2], m[2], l[2];
  for (int chunk = 0; chunk < 2; ++chunk) {
    m[chunk].assign(size, 1.0f);
    l[chunk].assign(size, 2.0f);
    o[chunk].assign(size * d, 4.0f);
    for (const size_t row : chunk == 0 ? std::vector<size_t>{1, 2} : std::vector<size_t>{2}) {
      m[chunk][row] = kNoColumn;
      l[chunk][row] = 0;
      for (size_t c = 0; c < d; ++c) o[chunk][c * size + row] = 0;
    }
    m[chunk][3] = chunk == 0 ? kNoColumn : kMinusInfinity;
  }
  // The kernel loads whole vectors.
  const auto aligned = [&](const std::vector<float>& from) {
    auto* to = static_cast<float*>(std::aligned_alloc(64, (from.size() * sizeof(float) + 63) / 64 * 64));
    std::copy(from.begin(), from.end(), to);
    return std::unique_ptr<float, void (*)(void*)>(to, std::free);
  };
  const auto o0 = aligned(o[0]), o1 = aligned(o[1]), m0 = aligned(m[0]), m1 = aligned(m[1]), l0 = aligned(l[0]),
             l1 = aligned(l[1]), factors = aligned(std::vector<float>(2 * 3 * size));
  const float *all_o[] = {o0.get(), o1.get()}, *all_m[] = {m0.get(), m1.get()}, *all_l[] = {l0.get(), l1.get()};
  std::vector<float> out_o(4 * d), out_m(4), out_l(4);
  MergeJob job = {};
  job.o = all_o;
  job.m = all_m;
  job.l = all_l;
  job.chunks = 2;
  job.vectors = 1;
  job.rows = 4;
  job.dims = job.d = d;
  job.out_o = out_o.data();
  job.out_m = out_m.data();
  job.out_l = out_l.data();
  job.factors = factors.get();
  kernels().merge_panel(job);
  const auto one = static_cast<float>(kLn2);
  CHECK(out_m[0] == one);
  CHECK(std::fabs(out_l[0] - 4.0f) < 1e-6f);
  CHECK(out_m[1] == one);
  CHECK(std::fabs(out_l[1] - 2.0f) < 1e-6f);
  CHECK(std::fabs(out_o[3] - 4.0f) < 1e-6f);
  CHECK(out_m[2] == kMinusInfinity);
  CHECK(out_l[2] == 0.0f);
  CHECK(out_o[6] == 0.0f);
  CHECK(std::isnan(out_m[3]));
}
