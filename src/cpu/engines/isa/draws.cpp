// The random draws of a call as arrays: loops over the scalar formulas of src/math, which are branch-free so that the
// compiler turns them into vector code; every operation is exact or correctly rounded, so the bits stay the same.
#include "cpu/simd/simd.h"
#include "math/lambda.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

constexpr int kBatch = 64;            // draws of one stage at a time: a few cache lines per array
constexpr uint32_t kWalkBatch = 256;  // positions that walk together

// out[0 .. d-1] from consecutive blocks at `index`: word d % 4 of block d / 4, 16-bit pairs.
void lambdas_of_words(const LambdaDraw& draw, uint64_t index, int64_t d, float* out) {
  uint32_t words[4][kBatch], in_order[4 * kBatch];
  for (int64_t start = 0; start < d; start += 4 * kBatch) {
    const int64_t count = d - start < 4 * kBatch ? d - start : 4 * kBatch;
    const int blocks = static_cast<int>((count + 3) / 4);
    const uint64_t first = index + static_cast<uint64_t>(start) / 4;
    for (int i = 0; i < blocks; ++i) {
      const Philox4 block = draw_block(draw.seed, draw.offset, draw.stream, first + static_cast<uint64_t>(i));
      for (int w = 0; w < 4; ++w) words[w][i] = block.word[w];
    }
    for (int i = 0; i < blocks; ++i)
      for (int w = 0; w < 4; ++w) in_order[4 * i + w] = words[w][i];
    for (int64_t c = 0; c < count; ++c) out[start + c] = lambda_from_word(in_order[c], draw.inv_alpha, draw.shift);
  }
}

}  // namespace

void sigma_table(const Feistel& f, int32_t first, uint32_t begin, uint32_t end, int32_t* out) {
  const Feistel key = f;  // a copy the compiler knows not to be changed by the stores
  for (uint32_t i = begin; i < end; ++i) out[i - begin] = static_cast<int32_t>(feistel_once(key, i));
  // Cycle walking, a batch at a time: those still outside take another step together, until none is left.
  for (uint32_t start = begin; start < end; start += kWalkBatch) {
    int32_t* batch = out + (start - begin);
    const int size = static_cast<int>(end - start < kWalkBatch ? end - start : kWalkBatch);
    uint32_t outside[kWalkBatch];
    int where[kWalkBatch];
    int left = 0;
    for (int i = 0; i < size; ++i) {
      outside[left] = static_cast<uint32_t>(batch[i]);
      where[left] = i;
      left += static_cast<uint32_t>(batch[i]) >= key.size;
    }
    while (left > 0) {
      for (int i = 0; i < left; ++i) outside[i] = feistel_once(key, outside[i]);
      int still = 0;
      for (int i = 0; i < left; ++i) {
        const uint32_t x = outside[i];
        batch[where[i]] = static_cast<int32_t>(x);
        outside[still] = x;
        where[still] = where[i];
        still += x >= key.size;
      }
      left = still;
    }
  }
  for (uint32_t i = begin; i < end; ++i) out[i - begin] += first;
}

void lambda_rows(const LambdaDraw& draw, int64_t first, int64_t count, float* out) {
  uint32_t words[2][kBatch];
  for (int64_t start = 0; start < count; start += kBatch) {
    const int batch = static_cast<int>(count - start < kBatch ? count - start : kBatch);
    for (int i = 0; i < batch; ++i) {
      const Philox4 block = draw_block(draw.seed, draw.offset, draw.stream, static_cast<uint64_t>(first + start + i));
      words[0][i] = block.word[0];
      words[1][i] = block.word[1];
    }
    for (int i = 0; i < batch; ++i)
      out[start + i] = add_rn(beta_symmetric(words[0][i], words[1][i], draw.inv_alpha), draw.shift);
  }
}

void lambda_dimensions(const LambdaDraw& draw, int64_t d, float* out) { lambdas_of_words(draw, 0, d, out); }

void lambda_elements(const LambdaDraw& draw, int64_t row, int64_t d, float* out) {
  lambdas_of_words(draw, static_cast<uint64_t>(row) * lambda_blocks_per_row(static_cast<uint64_t>(d)), d, out);
}

}  // namespace fnce::cpu::FNCE_ISA
