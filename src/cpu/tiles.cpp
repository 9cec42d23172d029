#include "cpu/tiles.h"

#include <cmath>

#include "cpu/pool.h"
#include "math/lambda.h"
#include "math/permutation.h"

namespace fnce::cpu {
namespace {

constexpr int64_t kTableSlice = 8192;  // entries of a table per parallel task

// sigma of all blocks of this shard, as local rows.
void draw_order(const CpuCall& call) {
  const fnce_problem& p = call.problem.raw();
  const int64_t width = p.perm_block == 0 || p.perm_block > p.k_global ? p.k_global : p.perm_block;
  const int64_t slice = width < kTableSlice ? width : kTableSlice;
  const int64_t slices_per_block = divide_up(width, slice);
  const int64_t blocks = divide_up(p.k, width);
  parallel_for(call.threads, blocks * slices_per_block, [&](int64_t task, int) {
    const int64_t start = task / slices_per_block * width;
    const PermutationBlock block = permutation_block(p.column_offset + start, p.perm_block, p.k_global);
    const auto begin = static_cast<uint32_t>(task % slices_per_block * slice);
    if (begin >= block.size) return;
    const uint32_t end = block.size - begin < slice ? block.size : begin + static_cast<uint32_t>(slice);
    const Feistel f = make_feistel(call.args.seed(), call.args.offset(), block.index, block.size);
    call.kernels.sigma_table(f, static_cast<int32_t>(start), begin, end, call.workspace.order + start + begin);
  });
}

// The position in the pass of the partner of position i.
int64_t partner_position(const fnce_problem& p, int64_t i) {
  const PermutationBlock block = permutation_block(p.column_offset + i, p.perm_block, p.k_global);
  const int64_t start = block.first - p.column_offset;
  return start + cycle_next(static_cast<uint32_t>(i - start), block.size);
}

// The row at a position: in the order of sigma where a sampled permutation mixes, else in that of the queue.
int32_t row_at(const CpuCall& call, const Negatives& negatives, int64_t position) {
  const bool in_order = negatives.mixing == Mixing::kNone || !call.workspace.order;
  return in_order ? static_cast<int32_t>(position) : call.workspace.order[position];
}

int32_t partner_at(const CpuCall& call, int64_t position) {
  if (call.args.raw().permutation) return call.args.raw().permutation[position];
  return call.workspace.order[partner_position(call.problem.raw(), position)];
}

// Packed column j of a tile whose scores are mixed -> offset of its position: the quads of C side by side, in the order
// of C.
constexpr int position_of_packed(int j) {
  const int quad = (j >> 2) & 3, v = j & 3;
  return (j & ~15) + 2 * quad + (v & 1) + 8 * (v >> 1);
}

float lambda_of_column(const CpuCall& call, const Negatives& negatives, int32_t row) {
  const fnce_problem& p = call.problem.raw();
  const float* given = call.args.raw().lambda_neg;
  if (p.lambda_neg == FNCE_LAMBDA_CALL) return given ? given[0] : negatives.lambda_call;
  return given ? given[row] : call.workspace.lambda_neg_rows[row];
}

// How rows of this problem are mixed while packing.
PackJob pack_job(const CpuCall& call, const Negatives& negatives, const ThreadScratch& scratch) {
  const fnce_problem& p = call.problem.raw();
  const fnce_args& a = call.args.raw();
  PackJob job = {};
  job.queue = a.queue;
  job.type = p.queue_type;
  job.rows = scratch.rows;
  job.first_row = p.column_offset;
  job.renormalize = p.renormalize_neg != 0;
  job.epsilon = a.epsilon;
  job.d = p.d;
  job.d_padded = call.tiling.d_padded;
  job.scratch = scratch.pack_row;
  job.packed = scratch.packed;
  const bool sampled = p.lambda_neg_source == FNCE_SAMPLED;
  switch (p.lambda_neg) {
    case FNCE_LAMBDA_CALL: job.lambda_call = sampled ? &negatives.lambda_call : a.lambda_neg; break;
    case FNCE_LAMBDA_ROW: job.lambda_rows = sampled ? call.workspace.lambda_neg_rows : a.lambda_neg; break;
    case FNCE_LAMBDA_DIMENSION: job.lambda_dims = sampled ? call.workspace.lambda_neg_dims : a.lambda_neg; break;
    case FNCE_LAMBDA_ELEMENT:
      if (sampled)
        job.lambda_elements = &negatives.draw;
      else
        job.lambda_given = a.lambda_neg;
      break;
    default: break;
  }
  return job;
}

// Rows to prefetch for the next tile.
int list_next(const CpuCall& call, const Negatives& negatives, const ColumnRange& next, int32_t* rows) {
  int count = 0;
  for (int j = 0; j < next.count; ++j) rows[count++] = row_at(call, negatives, next.first + j);
  // Sampled partners lie in the same tile; given ones anywhere.
  if (negatives.mixing == Mixing::kRows && call.args.raw().permutation)
    for (int j = 0; j < next.count; ++j) rows[count++] = partner_at(call, next.first + j);
  return count;
}

int padded_columns(const CpuCall& call, int columns) {
  return static_cast<int>(round_up(columns, call.tiling.shape.column_padding));
}

// Raw rows, in the order of the pass.
RowColumns run_raw(const CpuCall& call, const Negatives& negatives, const ColumnRange& range,
                   const ThreadScratch& scratch, TileJob& job) {
  PackJob pack = pack_job(call, negatives, scratch);
  pack.columns = padded_columns(call, range.count);
  for (int j = 0; j < pack.columns; ++j)
    scratch.rows[j] = row_at(call, negatives, range.first + (j < range.count ? j : range.count - 1));
  const bool finite = call.tiles.pack_columns(pack);
  job.mode = TileMode::kPlain;
  job.columns = range.count;
  call.tiles.run_tile(job);
  return {job.in_loss ? range.count : 0, finite};
}

// Raw rows whose scores are mixed: whole cycles of C, a multiple of 16 columns.
RowColumns run_mixed_scores(const CpuCall& call, const Negatives& negatives, const ColumnRange& range,
                            const ThreadScratch& scratch, TileJob& job) {
  PackJob pack = pack_job(call, negatives, scratch);
  pack.columns = padded_columns(call, range.count);
  float check = 0;
  for (int j = 0; j < pack.columns; ++j) {
    // Padding repeats the last quad: scores that cannot raise the maximum.
    const int source = j < range.count ? j : range.count - 4 + (j & 3);
    const int32_t row = row_at(call, negatives, range.first + position_of_packed(source));
    scratch.rows[j] = row;
    scratch.lambda[j] = lambda_of_column(call, negatives, row);
    check += scratch.lambda[j] * 0.0f;
  }
  const bool finite = call.tiles.pack_columns(pack) && check == 0;
  job.mode = negatives.is_union ? TileMode::kUnion : TileMode::kMixed;
  job.columns = range.count;
  job.lambda = scratch.lambda;
  call.tiles.run_tile(job);
  return {negatives.is_union ? 2 * range.count : range.count, finite};
}

// Rows mixed while they are packed; the raw rows after them where they are columns too or have statistics of their own.
RowColumns run_mixed_rows(const CpuCall& call, const Negatives& negatives, const ColumnRange& range,
                          const ThreadScratch& scratch, TileJob& job) {
  PackJob pack = pack_job(call, negatives, scratch);
  pack.columns = padded_columns(call, range.count);
  pack.partners = scratch.partners;
  for (int j = 0; j < pack.columns; ++j) {
    const int64_t position = range.first + (j < range.count ? j : range.count - 1);
    scratch.rows[j] = row_at(call, negatives, position);
    scratch.partners[j] = partner_at(call, position);
  }
  const RowColumns met = {range.count, call.tiles.pack_columns(pack)};
  TileJob mixed = job;
  mixed.mode = TileMode::kPlain;
  mixed.columns = range.count;
  mixed.unmixed = nullptr;
  call.tiles.run_tile(mixed);
  if (!negatives.is_union && !job.unmixed) return met;
  TileJob raw = job;
  raw.in_loss = negatives.is_union;
  if (!negatives.is_union) raw.mixed = nullptr;
  raw.next_count = 0;
  return both(met, run_raw(call, negatives, range, scratch, raw));
}

}  // namespace

Negatives draw_negatives(const CpuCall& call, bool mixing) {
  const fnce_problem& p = call.problem.raw();
  const fnce_args& a = call.args.raw();
  Negatives negatives = {Mixing::kNone, false, 0.0f, {}};
  if (!mixing || !call.problem.mixes_negatives()) return negatives;
  negatives.mixing = call.problem.can_mix_scores() ? Mixing::kScores : Mixing::kRows;
  negatives.is_union = call.problem.is_union();
  if (call.problem.samples_permutation() && p.k > 0) draw_order(call);
  if (!call.problem.samples_lambda_neg()) return negatives;
  negatives.draw = {call.args.seed(), call.args.offset(), Stream::kLambdaNeg, inverse_alpha(a.alpha_neg), a.shift_neg};
  if (p.lambda_neg == FNCE_LAMBDA_CALL) call.kernels.lambda_rows(negatives.draw, 0, 1, &negatives.lambda_call);
  if (p.lambda_neg == FNCE_LAMBDA_DIMENSION)
    call.kernels.lambda_dimensions(negatives.draw, p.d, call.workspace.lambda_neg_dims);
  if (p.lambda_neg == FNCE_LAMBDA_ROW)
    parallel_for(call.threads, divide_up(p.k, kTableSlice), [&](int64_t task, int) {
      const int64_t start = task * kTableSlice, count = p.k - start < kTableSlice ? p.k - start : kTableSlice;
      call.kernels.lambda_rows(negatives.draw, p.column_offset + start, count, call.workspace.lambda_neg_rows + start);
    });
  return negatives;
}

RowColumns run_columns(const CpuCall& call, const Negatives& negatives, const ColumnRange& range,
                       const ColumnRange& next, const ThreadScratch& scratch, TileJob job) {
  job.next_rows = scratch.next_rows;
  job.next_count = list_next(call, negatives, next, scratch.next_rows);
  switch (negatives.mixing) {
    case Mixing::kNone: return run_raw(call, negatives, range, scratch, job);
    case Mixing::kRows: return run_mixed_rows(call, negatives, range, scratch, job);
    case Mixing::kScores: break;
  }
  // The last positions of the last block may be no whole cycle of 16: there the rows are mixed.
  const ColumnRange whole{range.first, range.count & ~15};
  const ColumnRange rest{range.first + whole.count, range.count - whole.count};
  RowColumns met;
  if (whole.count > 0) {
    met = run_mixed_scores(call, negatives, whole, scratch, job);
    job.next_count = 0;
  }
  if (rest.count > 0) met = both(met, run_mixed_rows(call, negatives, rest, scratch, job));
  return met;
}

}  // namespace fnce::cpu
