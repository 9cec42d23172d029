// The atoms' models, against plain matrices that are laid out by the formulas of the PTX ISA: fragments of mma.m16n8k16
// (16-bit floats), fragments of ldmatrix with and without .trans, groups of cp.async.
#include "hostcuda/atoms_model.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "hostcuda/launch.h"
#include "hostcuda/selftest/build.h"
#include "math/half.h"
#include "support/catch.h"

namespace {

constexpr int kM = 16, kN = 8, kK = 16;

void require(bool right, int line) {
  if (!right) hostcuda::fail("line %d", line);
}

int launch_warp(const std::function<void()>& body, size_t shared = 0, unsigned threads = 32) {
  return hostcuda::launch({1, 1, 1}, threads, shared, "test", nullptr, body);
}

struct Matrices {
  float a[kM][kK], b[kK][kN], c[kM][kN];
};

// Integers that both types hold; products and sums are exact, so the order of sums cannot matter.
Matrices integers(uint32_t seed) {
  Matrices m;
  const auto next = [&seed] {
    seed = seed * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int>(seed >> 20) % 33 - 16);
  };
  for (auto& row : m.a)
    for (float& x : row) x = next();
  for (auto& row : m.b)
    for (float& x : row) x = next();
  for (auto& row : m.c)
    for (float& x : row) x = 100.0f * next();
  return m;
}

using Mma = void (*)(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t);
using FromFloat = uint16_t (*)(float);

// D = A B + C through the warp, fragments as the PTX ISA lists them: element i of a fragment is half i % 2 of register
// i / 2.
void multiply(Mma mma, FromFloat from_float, const Matrices& in, float (&out)[kM][kN]) {
  const int lane = static_cast<int>(threadIdx.x), group = lane >> 2, in_group = lane % 4;
  uint16_t a16[8], b16[4];
  for (int i = 0; i < 8; ++i) {
    const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
    const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    a16[i] = from_float(in.a[row][column]);
  }
  for (int i = 0; i < 4; ++i) b16[i] = from_float(in.b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group]);
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = a16[2 * i] | uint32_t{a16[2 * i + 1]} << 16;
  for (int i = 0; i < 2; ++i) b[i] = b16[2 * i] | uint32_t{b16[2 * i + 1]} << 16;
  float d[4];
  const auto row = [&](int i) { return i < 2 ? group : group + 8; };
  const auto column = [&](int i) { return in_group * 2 + (i & 1); };
  for (int i = 0; i < 4; ++i) d[i] = in.c[row(i)][column(i)];
  mma(d, a, b[0], b[1]);
  for (int i = 0; i < 4; ++i) out[row(i)][column(i)] = d[i];
}

uint16_t half_of(float x) { return fnce::float_to_half(x); }
uint16_t bfloat_of(float x) { return fnce::float_to_bfloat(x); }

// Element (row, column) of matrix m in the ldmatrix tests. Rows lie 48 bytes apart, in an order that is not theirs.
constexpr uint16_t element(unsigned m, unsigned row, unsigned column) {
  return static_cast<uint16_t>(m * 1000 + row * 10 + column);
}
constexpr unsigned kRowStride = 24;
constexpr unsigned place_of(unsigned row) { return row * 5 % 32; }

const uint16_t* fill_rows() {
  uint16_t* shared = reinterpret_cast<uint16_t*>(hostcuda::dynamic_shared());
  uint16_t* row = shared + place_of(threadIdx.x) * kRowStride;
  for (unsigned column = 0; column < 8; ++column) row[column] = element(threadIdx.x / 8, threadIdx.x % 8, column);
  __syncwarp();
  return row;
}

}  // namespace

TEST_CASE("hostcuda: mma against plain matrices") {
  for (const hostcuda::Schedule schedule : hostcuda::kSchedules) {
    const hostcuda::Options before = hostcuda::options();
    hostcuda::set_options({.schedule = schedule});
    for (uint32_t seed = 1; seed < 6; ++seed) {
      const Matrices in = integers(seed);
      float half[kM][kN], bfloat[kM][kN];
      REQUIRE(launch_warp([&] {
                multiply(hostcuda::mma_m16n8k16_f16, half_of, in, half);
                multiply(hostcuda::mma_m16n8k16_bf16, bfloat_of, in, bfloat);
              }) == 0);
      for (int m = 0; m < kM; ++m)
        for (int n = 0; n < kN; ++n) {
          float sum = in.c[m][n];
          for (int k = 0; k < kK; ++k) sum += in.a[m][k] * in.b[k][n];
          CHECK(half[m][n] == sum);
          CHECK(bfloat[m][n] == sum);
        }
    }
    hostcuda::set_options(before);
  }
}

TEST_CASE("hostcuda: mma cuts off what lies 24 bits below the largest addend, or 25") {
  const char* units = std::getenv("FNCE_HOSTCUDA_MATRIX_UNITS");
  const bool hopper = units && std::string(units) == "hopper";
  Matrices in = {};
  const auto set = [&in](int row, float c, float product, int first, int last) {
    in.c[row][0] = c;
    for (int k = first; k < last; ++k) in.a[row][k] = product;
  };
  for (auto& row : in.b) row[0] = 0x1p-12f;
  set(0, 1.0f, 0x1.8p-11f, 0, 1);     // 1 + 1.5 * 2^-23: towards zero
  set(1, -1.0f, -0x1.8p-11f, 0, 1);   // likewise
  set(2, 1.0f, 0x1p-13f, 0, 16);      // 16 * 2^-25 beside 1
  set(3, 1.0f, 0x1p-14f, 0, 16);      // 16 * 2^-26 beside 1: lost to both
  set(4, 0x1p-26f, 0x1p-13f, 0, 16);  // the same without anything large: all there
  set(5, 1.0f, 0x1p-12f, 6, 9);       // 3 * 2^-24, on both sides of Ampere's half
  float out[kM][kN];
  REQUIRE(launch_warp([&] { multiply(hostcuda::mma_m16n8k16_f16, half_of, in, out); }) == 0);
  CHECK(out[0][0] == 1.0f + 0x1p-23f);
  CHECK(out[1][0] == -1.0f - 0x1p-23f);
  CHECK(out[2][0] == (hopper ? 1.0f + 0x1p-21f : 1.0f));
  CHECK(out[3][0] == 1.0f);
  CHECK(out[4][0] == 0x1p-21f + 0x1p-26f);
  CHECK(out[5][0] == 1.0f + 0x1p-23f);
}

TEST_CASE("hostcuda: mma with denormal and non-finite elements") {
  Matrices in = {};
  in.a[3][2] = 0x1p-24f;  // the smallest float16
  in.b[2][1] = 0.5f;
  in.a[4][7] = std::numeric_limits<float>::infinity();
  in.a[5][0] = std::numeric_limits<float>::quiet_NaN();
  for (float& x : in.b[7]) x = 1.0f;
  in.b[7][6] = 0.0f;
  float out[kM][kN];
  REQUIRE(launch_warp([&] { multiply(hostcuda::mma_m16n8k16_f16, half_of, in, out); }) == 0);
  CHECK(out[3][1] == 0x1p-25f);
  CHECK(out[4][0] == std::numeric_limits<float>::infinity());
  CHECK(std::isnan(out[4][6]));
  for (int n = 0; n < kN; ++n) CHECK(std::isnan(out[5][n]));
  CHECK(out[6][0] == 0.0f);
}

TEST_CASE("hostcuda: ldmatrix, plain and transposed") {
  for (const hostcuda::Schedule schedule : hostcuda::kSchedules) {
    const hostcuda::Options before = hostcuda::options();
    hostcuda::set_options({.schedule = schedule});
    CHECK(launch_warp(
              [] {
                const uint16_t* row = fill_rows();
                const unsigned lane = threadIdx.x;
                uint32_t plain[4], transposed[4];
                hostcuda::ldmatrix_x4(plain, row);
                hostcuda::ldmatrix_x4_trans(transposed, row);
                for (unsigned m = 0; m < 4; ++m) {
                  require((plain[m] & 0xffff) == element(m, lane / 4, 2 * (lane % 4)), __LINE__);
                  require(plain[m] >> 16 == element(m, lane / 4, 2 * (lane % 4) + 1), __LINE__);
                  require((transposed[m] & 0xffff) == element(m, 2 * (lane % 4), lane / 4), __LINE__);
                  require(transposed[m] >> 16 == element(m, 2 * (lane % 4) + 1, lane / 4), __LINE__);
                }
              },
              32 * kRowStride * sizeof(uint16_t)) == 0);
    hostcuda::set_options(before);
  }
}

TEST_CASE("hostcuda: ldmatrix refuses addresses that the hardware would") {
  hostcuda::Options quiet = hostcuda::options();
  quiet.quiet = true;
  hostcuda::set_options(quiet);
  const auto read_at = [](int offset) {
    return launch_warp(
        [offset] {
          uint32_t r[4];
          hostcuda::ldmatrix_x4(r, hostcuda::dynamic_shared() + offset);
        },
        256);
  };
  CHECK(read_at(0) == 0);
  CHECK(read_at(240) == 0);
  CHECK(read_at(8) != 0);
  CHECK(hostcuda::last_failure().find("ldmatrix at offset 8 of shared memory, no multiple of 16") != std::string::npos);
  CHECK(read_at(256) != 0);
  CHECK(hostcuda::last_failure().find("ldmatrix outside shared memory, at 256 of 256 bytes") != std::string::npos);
  CHECK(read_at(-16) != 0);
  quiet.quiet = false;
  hostcuda::set_options(quiet);
}

TEST_CASE("hostcuda: copies land when their group has been waited for, zeros where there is nothing to copy") {
  alignas(16) static uint32_t global[4 * 64];
  for (uint32_t i = 0; i < 4 * 64; ++i) global[i] = i;
  CHECK(launch_warp(
            [] {
              const unsigned t = threadIdx.x;
              uint32_t* shared = reinterpret_cast<uint32_t*>(hostcuda::dynamic_shared()) + 16 * t;
              for (unsigned i = 0; i < 16; ++i) shared[i] = 1;
              for (unsigned i = 0; i < 3; ++i) {
                hostcuda::cp_async_16(shared + 4 * i, global + 4 * ((t + i) % 64), i != 1);
                hostcuda::cp_async_commit();
              }
              hostcuda::cp_async_16(shared + 12, global, true);
              const auto spoiled = [&](unsigned i) { return selftest::kAsan || shared[4 * i] == 0xffffffffu; };
              for (unsigned i = 0; i < 4; ++i) require(spoiled(i), __LINE__);
              hostcuda::cp_async_wait(2);
              require(shared[0] == 4 * (t % 64) && shared[3] == 4 * (t % 64) + 3, __LINE__);
              require(spoiled(1) && spoiled(2) && spoiled(3), __LINE__);
              hostcuda::cp_async_wait(1);
              require(shared[4] == 0 && shared[7] == 0 && spoiled(2), __LINE__);
              hostcuda::cp_async_wait(0);
              require(shared[8] == 4 * ((t + 2) % 64) && spoiled(3), __LINE__);
              hostcuda::cp_async_commit();
              hostcuda::cp_async_wait(0);
              require(shared[12] == 0 && shared[15] == 3, __LINE__);
            },
            64 * 64, 64) == 0);
}

TEST_CASE("hostcuda: copies refuse misaligned addresses") {
  hostcuda::Options quiet = hostcuda::options();
  quiet.quiet = true;
  hostcuda::set_options(quiet);
  alignas(16) static unsigned char global[64];
  const auto copy = [](int to, int from) {
    return launch_warp(
        [=] {
          if (threadIdx.x == 0) hostcuda::cp_async_16(hostcuda::dynamic_shared() + to, global + from, true);
        },
        64);
  };
  CHECK(copy(16, 16) == 0);
  CHECK(copy(8, 16) != 0);
  CHECK(copy(16, 8) != 0);
  CHECK(copy(64, 0) != 0);
  if (selftest::kAsan) {
    const std::vector<unsigned char> heap(64);
    const auto past_the_end = [&] {
      hostcuda::cp_async_16(hostcuda::dynamic_shared(), heap.data() + (threadIdx.x ? 0 : 64), true);
    };
    CHECK(launch_warp(past_the_end, 64) != 0);
    CHECK(hostcuda::last_failure().find("outside an allocation") != std::string::npos);
  }
  quiet.quiet = false;
  hostcuda::set_options(quiet);
}

TEST_CASE("hostcuda: exp2 flushes denormals and keeps special values") {
  using hostcuda::exp2_approx;
  const float inf = std::numeric_limits<float>::infinity();
  CHECK(exp2_approx(0.0f) == 1.0f);
  CHECK(exp2_approx(1e-42f) == 1.0f);
  CHECK(exp2_approx(-3.0f) == 0.125f);
  CHECK(exp2_approx(-126.0f) == 0x1p-126f);
  CHECK(exp2_approx(-126.5f) == 0.0f);
  CHECK(exp2_approx(-inf) == 0.0f);
  CHECK(exp2_approx(128.0f) == inf);
  CHECK(exp2_approx(inf) == inf);
  CHECK(std::isnan(exp2_approx(std::numeric_limits<float>::quiet_NaN())));
}
