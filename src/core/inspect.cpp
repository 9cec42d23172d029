#include "core/inspect.h"

#include "core/status.h"
#include "math/lambda.h"
#include "math/permutation.h"

namespace fnce {
namespace {

// The lambdas of one side of the problem.
struct Draw {
  Stream stream;
  int32_t granularity;
  int64_t rows, first_row, count;
  float alpha, shift;
};

Draw draw_of(const Problem& problem, const fnce_args& a, Stream stream) {
  const fnce_problem& p = problem.raw();
  if (stream == Stream::kLambdaPos)
    return {stream, p.lambda_pos, p.n, p.row_offset, problem.lambda_pos_count(), a.alpha_pos, a.shift_pos};
  return {stream, p.lambda_neg, p.k, p.column_offset, problem.lambda_neg_count(), a.alpha_neg, a.shift_neg};
}

void fill(const Draw& draw, const Args& args, uint64_t d, float* out) {
  const float inv_alpha = inverse_alpha(draw.alpha);
  const uint64_t seed = args.seed(), offset = args.offset(), first = static_cast<uint64_t>(draw.first_row);
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

// Something is drawn only where there is mixing and its source is FNCE_SAMPLED.
void check_sampled(int32_t granularity, const char* granularity_field, int32_t source, const char* source_field) {
  if (granularity == FNCE_LAMBDA_NONE)
    invalid(granularity_field, "0 (FNCE_LAMBDA_NONE)", "a granularity with mixing: nothing is drawn without");
  if (source != FNCE_SAMPLED) invalid(source_field, "1 (FNCE_GIVEN)", "FNCE_SAMPLED (0): nothing is drawn");
}

}  // namespace

void sample_lambda(const Problem& problem, const Args& args, Stream stream, float* out, int64_t count) {
  const fnce_problem& p = problem.raw();
  if (stream == Stream::kLambdaPos)
    check_sampled(p.lambda_pos, "problem.lambda_pos", p.lambda_pos_source, "problem.lambda_pos_source");
  else
    check_sampled(p.lambda_neg, "problem.lambda_neg", p.lambda_neg_source, "problem.lambda_neg_source");
  const Draw draw = draw_of(problem, args.raw(), stream);
  check_count(count, draw.count);
  if (count > 0) require_pointer(out, 4, "out", "host memory of count numbers");
  fill(draw, args, static_cast<uint64_t>(problem.d()), out);
}

void sample_permutation(const Problem& problem, const Args& args, int32_t* out, int64_t count) {
  const fnce_problem& p = problem.raw();
  check_sampled(p.lambda_neg, "problem.lambda_neg", p.permutation_source, "problem.permutation_source");
  check_count(count, p.k);
  if (count > 0) require_pointer(out, 4, "out", "host memory of count indices");
  for (int64_t start = 0; start < p.k;) {
    const PermutationBlock block = permutation_block(p.column_offset + start, p.perm_block, p.k_global);
    const Feistel f = make_feistel(args.seed(), args.offset(), block.index, block.size);
    for (uint32_t j = 0; j < block.size; ++j) out[start + j] = static_cast<int32_t>(start + permute(f, j));
    start += block.size;
  }
}

}  // namespace fnce
