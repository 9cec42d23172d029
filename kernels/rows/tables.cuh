// Tables over the columns in the order of the pass: sigma and lambda, equation (3).
#pragma once
#include "kernels/rows/draws.cuh"
#include "kernels/rows/reduce.cuh"
#include "math/lse.h"
#include "math/permutation.h"

namespace fnce::cuda {

struct TableJob {
  const Tables& tables;
  const LambdaSource& lambda;
  const Draws& draws;
  int64_t k, k_global, column_offset, perm_block;
  int32_t blocks;
};

// PrepParams and PackParams have the same fields for it.
template <class Params>
FNCE_DEVICE TableJob table_job(const Params& p, const Draws& draws) {
  return {p.tables, p.lambda_neg, draws, p.k, p.k_global, p.column_offset, p.perm_block, p.table_blocks};
}

// sigma inside the block of the permutation that was asked for last.
struct Order {
  Feistel feistel;
  int64_t first, end;  // its positions, counted locally
};

FNCE_DEVICE int64_t row_at(const TableJob& job, Order& order, int64_t position) {
  if (position >= order.end) {
    const PermutationBlock block = permutation_block(job.column_offset + position, job.perm_block, job.k_global);
    order.first = block.first - job.column_offset;
    order.end = order.first + block.size;
    order.feistel = make_feistel(value_of(job.draws.seed), offset_of(job.draws), block.index, block.size);
  }
  return order.first + sigma(order.feistel, static_cast<uint32_t>(position - order.first));
}

FNCE_DEVICE float extent_of(float lambda) { return abs_of(lambda) + abs_of(1.0f - lambda); }

// Fills table block `block` of job.blocks, a stretch of the positions.
FNCE_DEVICE void fill_tables(const TableJob& job, int64_t block, BlockReduce reduce) {
  const Tables& t = job.tables;
  const LambdaReader lambdas = lambda_reader(job.lambda, job.draws, Stream::kLambdaNeg);
  const float check = t.order && is_wrong_offset(job.draws) ? nan_float() : 0.0f;
  const bool per_row = t.lambda && lambdas.granularity == FNCE_LAMBDA_ROW;
  const int64_t stretch = (job.k + job.blocks - 1) / job.blocks, begin = block * stretch;
  const int64_t end = begin + stretch < job.k ? begin + stretch : job.k;
  Order order = {};
  float extent = 0;
  for (int64_t position = begin + threadIdx.x; position < end; position += kRowThreads) {
    const int64_t row = t.order ? row_at(job, order, position) : position;
    if (t.order) t.order[position] = static_cast<int32_t>(row);
    if (!per_row) continue;
    const float lambda = lambda_of_row(lambdas, row, job.column_offset + row) + check;
    t.lambda[position] = lambda;
    extent = MaxOrNan()(extent, extent_of(lambda));
  }
  if (t.lambda && !per_row) {
    const float lambda = lambda_of_row(lambdas, 0, 0) + check;
    extent = extent_of(lambda);
    if (block == 0 && threadIdx.x == 0) t.lambda[0] = lambda;
  }
  if (!t.lambda_extent) return;
  extent = block_max(reduce, extent);
  if (threadIdx.x == 0) t.lambda_extent[block] = extent;
}

}  // namespace fnce::cuda
