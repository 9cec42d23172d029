// Matrix products: the last lane to come computes the whole tile for its warp.
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "hostcuda/atoms_model.h"
#include "hostcuda/runtime/block.h"
#include "math/half.h"

namespace hostcuda {
namespace {

constexpr int kM = 16, kN = 8, kK = 16;

using ToFloat = float (*)(uint16_t);

// Where the table in atoms_model.h places the elements of A and B among the 16-bit halves of all lanes' registers.
constexpr int a_index(int m, int k) { return (m % 8 * 4 + k % 8 / 2) * 8 + (m / 8 + k / 8 * 2) * 2 + k % 2; }
constexpr int b_index(int k, int n) { return (n * 4 + k % 8 / 2) * 4 + k / 8 * 2 + k % 2; }

// How the matrix units add: products and the accumulator are aligned to the largest exponent among them, cut off below
// so many fraction bits of it, and added exactly; the sum is cut off to float32. Always towards zero. The figures are
// those that Li et al., MMA-Sim (github.com/microsoft/MMA-Sim), measured: Ampere and Ada Lovelace take the 16 products
// as two times 8.
struct MatrixUnits {
  int fraction_bits, products;
};
constexpr MatrixUnits kAmpere = {24, 8}, kHopper = {25, 16};

const MatrixUnits& matrix_units() {
  static const MatrixUnits units = [] {
    const char* name = std::getenv("FNCE_HOSTCUDA_MATRIX_UNITS");
    return name && std::strcmp(name, "hopper") == 0 ? kHopper : kAmpere;
  }();
  return units;
}

// A row of B or D. Compilers do not find these forms by themselves.
typedef float Row __attribute__((vector_size(kN * sizeof(float))));
typedef double WideRow __attribute__((vector_size(kN * sizeof(double))));
typedef int32_t IntRow __attribute__((vector_size(kN * sizeof(int32_t))));

// 2^floor(log2 |x|), but `least` of what is smaller, a denormal of its type; 0 for 0.
double binade(double x, double least) {
  if (x == 0) return 0;
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0x7ff0000000000000u;
  std::memcpy(&x, &bits, sizeof bits);
  return std::fmax(x, least);
}

float towards_zero(double x) {
  auto y = static_cast<float>(x);
  if (std::fabs(static_cast<double>(y)) > std::fabs(x)) y = std::nextafterf(y, 0.0f);
  return y;
}

// One row of the operands, as doubles, and the powers of two below their elements.
struct Factors {
  double a[kK], a_binade[kK];
  const WideRow *b, *b_binade;
};

void add_products(const Factors& in, const MatrixUnits& units, Row& row) {
  for (int first = 0; first < kK; first += units.products) {
    WideRow c = __builtin_convertvector(row, WideRow), largest;
    for (int n = 0; n < kN; ++n) largest[n] = std::fmax(binade(c[n], 0x1p-126), 0x1p-126);
    for (int k = first; k < first + units.products; ++k) {
      const WideRow product = in.a_binade[k] * in.b_binade[k];
      largest = largest > product ? largest : product;
    }
    const double unit = std::ldexp(1.0, -units.fraction_bits);
    const WideRow scale = 1.0 / (unit * largest);
    // A product of significands lies below 4: each addend below 2^27.
    IntRow cut_off = __builtin_convertvector(c * scale, IntRow);
    c = __builtin_convertvector(cut_off, WideRow);
    for (int k = first; k < first + units.products; ++k) {
      cut_off = __builtin_convertvector(in.a[k] * in.b[k] * scale, IntRow);
      c += __builtin_convertvector(cut_off, WideRow);
    }
    c *= unit * largest;
    for (int n = 0; n < kN; ++n) row[n] = towards_zero(c[n]);
  }
}

template <ToFloat to_float>
void multiply(MmaOperands& operands) {
  alignas(64) uint16_t halves[kM * kK];
  alignas(64) float a[kM * kK], b_lanes[kK * kN];
  WideRow b[kK], b_binade[kK];
  constexpr double kLeast = to_float == fnce::half_to_float ? 0x1p-14 : 0x1p-126;
  const MatrixUnits units = matrix_units();
  std::memcpy(halves, operands.a, sizeof operands.a);
  for (int i = 0; i < kM * kK; ++i) a[i] = to_float(halves[i]);
  std::memcpy(halves, operands.b, sizeof operands.b);
  for (int i = 0; i < kK * kN; ++i) b_lanes[i] = to_float(halves[i]);
  for (int k = 0; k < kK; ++k)
    for (int n = 0; n < kN; ++n) {
      b[k][n] = static_cast<double>(b_lanes[b_index(k, n)]);
      b_binade[k][n] = binade(b[k][n], kLeast);
    }
  Factors factors = {{}, {}, b, b_binade};
  for (int m = 0; m < kM; ++m) {
    // Row m of D: lanes 4 (m % 8) .. + 3 hold two neighbours each.
    float(*const lanes)[4] = &operands.d[m % 8 * 4];
    const int i = m / 8 * 2;
    const Row before = {lanes[0][i], lanes[0][i + 1], lanes[1][i], lanes[1][i + 1],
                        lanes[2][i], lanes[2][i + 1], lanes[3][i], lanes[3][i + 1]};
    WideRow whole = __builtin_convertvector(before, WideRow);
    for (int k = 0; k < kK; ++k) {
      factors.a[k] = static_cast<double>(a[a_index(m, k)]);
      factors.a_binade[k] = binade(factors.a[k], kLeast);
      whole += factors.a[k] * b[k];
    }
    Row row = before;
    add_products(factors, units, row);
    // What is not finite, or too large, is so in any order.
    for (int n = 0; n < kN; ++n)
      lanes[n / 2][i + n % 2] = std::fabs(whole[n]) < 0x1p128 ? row[n] : static_cast<float>(whole[n]);
  }
}

template <ToFloat to_float>
void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Op op) {
  Block& block = current_block();
  if (block.threads() % kWarp) block.fail("mma in a block of %u threads, no multiple of 32", block.threads());
  Warp& warp = block.warp();
  const unsigned lane = block.current().context.lane;
  MmaOperands& operands = warp.mma[warp.collective.side()];
  std::memcpy(operands.a[lane], a, sizeof a);
  operands.b[lane][0] = b0;
  operands.b[lane][1] = b1;
  std::memcpy(operands.d[lane], d, sizeof d);
  if (block.arrive(warp.collective, kWarp, op, {"atoms", 0})) {
    multiply<to_float>(operands);
    block.complete(warp.collective);
  } else {
    block.await(warp.collective);
  }
  std::memcpy(d, operands.d[lane], sizeof d);
}

}  // namespace

void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma<fnce::half_to_float>(d, a, b0, b1, Op::kMmaF16);
}

void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma<fnce::bfloat_to_float>(d, a, b0, b1, Op::kMmaBf16);
}

}  // namespace hostcuda
