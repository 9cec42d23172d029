// Matrix products: the last lane to come computes the whole tile for its warp.
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

// A row of B or D in vector registers. Compilers do not find this form by themselves.
typedef float Row __attribute__((vector_size(kN * sizeof(float))));

template <ToFloat to_float>
void multiply(MmaOperands& operands) {
  alignas(64) uint16_t halves[kM * kK];
  alignas(64) float a[kM * kK], b_lanes[kK * kN];
  Row b[kK];
  std::memcpy(halves, operands.a, sizeof operands.a);
  for (int i = 0; i < kM * kK; ++i) a[i] = to_float(halves[i]);
  std::memcpy(halves, operands.b, sizeof operands.b);
  for (int i = 0; i < kK * kN; ++i) b_lanes[i] = to_float(halves[i]);
  for (int k = 0; k < kK; ++k)
    for (int n = 0; n < kN; ++n) b[k][n] = b_lanes[b_index(k, n)];
  for (int m = 0; m < kM; ++m) {
    // Row m of D: lanes 4 (m % 8) .. + 3 hold two neighbours each.
    float(*const lanes)[4] = &operands.d[m % 8 * 4];
    const int i = m / 8 * 2;
    Row row = {lanes[0][i], lanes[0][i + 1], lanes[1][i], lanes[1][i + 1],
               lanes[2][i], lanes[2][i + 1], lanes[3][i], lanes[3][i + 1]};
    for (int k = 0; k < kK; ++k) row += a[a_index(m, k)] * b[k];
    for (int n = 0; n < kN; ++n) lanes[n / 2][i + n % 2] = row[n];
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
