#include "core/inspect.h"

#include "core/status.h"
#include "math/lambda.h"
#include "math/permutation.h"

namespace fnce {
namespace {

struct Draw {
  Stream stream;
  int32_t granularity;
  int64_t rows, first_row, d;
  float alpha, shift;
};

void sample_lambda(const Draw& draw, const Args& args, float* out) {
  const float inv_alpha = inverse_alpha(draw.alpha);
  const uint64_t seed = args.seed(), offset = args.offset();
  const auto first = static_cast<uint64_t>(draw.first_row), d = static_cast<uint64_t>(draw.d);
  switch (draw.granularity) {
    case FNCE_LAMBDA_CALL: out[0] = sample_lambda_call(seed, offset, draw.stream, inv_alpha, draw.shift); break;
    case FNCE_LAMBDA_ROW:
      for (int64_t i = 0; i < draw.rows; ++i)
        out[i] = sample_lambda_row(seed, offset, draw.stream, inv_alpha, draw.shift, first + static_cast<uint64_t>(i));
      break;
    case FNCE_LAMBDA_DIMENSION:
      for (uint64_t c = 0; c < d; ++c)
        out[c] = sample_lambda_dimension(seed, offset, draw.stream, inv_alpha, draw.shift, c);
      break;
    case FNCE_LAMBDA_ELEMENT:
      for (int64_t i = 0; i < draw.rows; ++i)
        for (uint64_t c = 0; c < d; ++c)
          *out++ = sample_lambda_element(seed, offset, draw.stream, inv_alpha, draw.shift,
                                         first + static_cast<uint64_t>(i), c, d);
      break;
    default: break;
  }
}

void check_count(int64_t count, int64_t expected) {
  if (count != expected) invalid("count", to_text(count), to_text(expected) + ", the shape of the problem");
}

void check_sampled(bool sampled, const char* field) {
  if (!sampled) invalid(field, "not FNCE_SAMPLED or without mixing", "a problem that samples it");
}

}  // namespace

void sample_lambda_pos(const Problem& problem, const Args& args, float* out, int64_t count) {
  const fnce_problem& p = problem.raw();
  check_sampled(problem.samples_lambda_pos(), "problem.lambda_pos");
  check_count(count, problem.lambda_pos_count());
  if (count > 0) require_pointer(out, 4, "out", "host memory of count numbers");
  sample_lambda({Stream::kLambdaPos, p.lambda_pos, p.n, p.row_offset, p.d, args.raw().alpha_pos, args.raw().shift_pos},
                args, out);
}

void sample_lambda_neg(const Problem& problem, const Args& args, float* out, int64_t count) {
  const fnce_problem& p = problem.raw();
  check_sampled(problem.samples_lambda_neg(), "problem.lambda_neg");
  check_count(count, problem.lambda_neg_count());
  if (count > 0) require_pointer(out, 4, "out", "host memory of count numbers");
  sample_lambda({Stream::kLambdaNeg, p.lambda_neg, p.k, p.column_offset, p.d, args.raw().alpha_neg, args.raw().shift_neg},
                args, out);
}

void sample_permutation(const Problem& problem, const Args& args, int32_t* out, int64_t count) {
  const fnce_problem& p = problem.raw();
  check_sampled(problem.samples_permutation(), "problem.permutation_source");
  check_count(count, p.k);
  if (count > 0) require_pointer(out, 4, "out", "host memory of count indices");
  for (int64_t start = 0; start < p.k;) {
    const PermutationBlock block = permutation_block(p.column_offset + start, p.perm_block, p.k_global);
    const Feistel f = make_feistel(args.seed(), args.offset(), block.index, block.size);
    for (uint32_t j = 0; j < block.size; ++j)
      out[start + j] = static_cast<int32_t>(start + permute(f, j));
    start += block.size;
  }
}

}  // namespace fnce
