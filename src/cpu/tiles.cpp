#include "cpu/tiles.h"

#include <cmath>
#include <cstring>

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
  job.queue = negatives.source.rows;
  job.type = negatives.source.type;
  job.rows = scratch.rows;
  job.first_row = p.column_offset;
  job.renormalize = p.renormalize_neg != 0;
  job.epsilon = a.epsilon;
  job.d = p.d;
  job.d_padded = call.tiling.d_padded;
  job.scratch = scratch.pack_row;
  job.packed = scratch.packed;
  if (negatives.mixing == Mixing::kNone) return job;
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

// One tile of one task.
struct Tile {
  const CpuCall& call;
  const Negatives& negatives;
  const ThreadScratch& scratch;
};

// Packs a tile; false if a column is not finite. Where masks may leave such a column out, scratch.blank says which, and
// zeros are packed in their places: the mask spoils the scores of the rows for which they count.
bool pack(const Tile& tile, PackJob& job) {
  const ThreadScratch& scratch = tile.scratch;
  if (tile.call.tiles.pack_columns(job)) return true;
  if (!tile.call.problem.has_mask()) return false;
  for (int j = 0; j < job.columns; ++j) {
    PackJob copies = job;  // a tile of nothing but this column
    copies.columns = tile.call.tiling.shape.column_padding;
    copies.rows = scratch.probe;
    if (job.partners) copies.partners = scratch.probe + kColumnTile;
    for (int i = 0; i < copies.columns; ++i) {
      scratch.probe[i] = job.rows[j];
      if (job.partners) scratch.probe[kColumnTile + i] = job.partners[j];
    }
    scratch.blank[j] = tile.call.tiles.pack_columns(copies) ? 0 : kBlankRow;
  }
  job.blank = scratch.blank;
  tile.call.tiles.pack_columns(job);
  return false;
}

// PackedColumns.blank of a tile that has been packed.
const uint8_t* blank_of(const Tile& tile, bool finite) {
  return finite || !tile.call.problem.has_mask() ? nullptr : tile.scratch.blank;
}

// Runs a packed tile whose columns are in `columns`. `finite` says that all of them are. Each packed column is `kinds`
// columns of the loss.
RowColumns run(const Tile& tile, const PackedColumns& columns, bool finite, int kinds, TileJob& job) {
  TileMask mask;
  const bool masked = make_mask(tile.call, tile.negatives.source, columns, tile.scratch, mask);
  job.mask = masked ? &mask : nullptr;
  job.columns = columns.count;
  tile.call.tiles.run_tile(job);
  job.mask = nullptr;
  // What a masked tile has counted, and what is not finite, the engine has told the rows that it concerns.
  return masked ? RowColumns{0, true} : RowColumns{kinds * columns.count, finite};
}

// Raw rows, in the order of the pass.
RowColumns run_raw(const Tile& tile, const ColumnRange& range, TileJob& job) {
  const ThreadScratch& scratch = tile.scratch;
  PackJob packing = pack_job(tile.call, tile.negatives, scratch);
  packing.columns = padded_columns(tile.call, range.count);
  for (int j = 0; j < packing.columns; ++j)
    scratch.rows[j] = row_at(tile.call, tile.negatives, range.first + (j < range.count ? j : range.count - 1));
  const bool finite = pack(tile, packing);
  job.mode = job.pairs && !job.pairs->m ? TileMode::kPairs : TileMode::kPlain;
  return run(tile, {range.count, packing.columns, scratch.rows, nullptr, false, blank_of(tile, finite)}, finite,
             job.in_loss ? 1 : 0, job);
}

// Raw rows whose scores are mixed: whole cycles of C, a multiple of 16 columns.
RowColumns run_mixed_scores(const Tile& tile, const ColumnRange& range, TileJob& job) {
  const ThreadScratch& scratch = tile.scratch;
  PackJob packing = pack_job(tile.call, tile.negatives, scratch);
  packing.columns = padded_columns(tile.call, range.count);
  float check = 0;
  for (int j = 0; j < packing.columns; ++j) {
    // Padding repeats the last quad: scores that cannot raise the maximum.
    const int source = j < range.count ? j : range.count - 4 + (j & 3);
    const int32_t row = row_at(tile.call, tile.negatives, range.first + position_of_packed(source));
    scratch.rows[j] = row;
    scratch.lambda[j] = lambda_of_column(tile.call, tile.negatives, row);
    check += scratch.lambda[j] * 0.0f;
  }
  const bool packed = pack(tile, packing);
  const bool finite = packed && check == 0;
  if (!finite && tile.call.problem.has_mask()) {
    if (packed) std::memset(scratch.blank, 0, static_cast<size_t>(packing.columns));
    for (int j = 0; j < packing.columns; ++j) {
      if (scratch.lambda[j] * 0.0f == 0.0f) continue;
      scratch.lambda[j] = 0.0f;
      scratch.blank[j] |= kBlankLambda;
    }
  }
  job.mode = tile.negatives.is_union ? TileMode::kUnion : TileMode::kMixed;
  job.lambda = scratch.lambda;
  return run(tile, {range.count, packing.columns, scratch.rows, nullptr, true, blank_of(tile, finite)}, finite,
             tile.negatives.is_union ? 2 : 1, job);
}

// Rows mixed while they are packed; the raw rows after them where they are columns too or have statistics of their own.
RowColumns run_mixed_rows(const Tile& tile, const ColumnRange& range, TileJob& job) {
  const ThreadScratch& scratch = tile.scratch;
  PackJob packing = pack_job(tile.call, tile.negatives, scratch);
  packing.columns = padded_columns(tile.call, range.count);
  packing.partners = scratch.partners;
  for (int j = 0; j < packing.columns; ++j) {
    const int64_t position = range.first + (j < range.count ? j : range.count - 1);
    scratch.rows[j] = row_at(tile.call, tile.negatives, position);
    scratch.partners[j] = partner_at(tile.call, position);
  }
  const bool finite = pack(tile, packing);
  TileJob mixed = job;
  mixed.mode = TileMode::kPlain;
  mixed.unmixed = nullptr;
  const RowColumns met =
      run(tile, {range.count, packing.columns, scratch.rows, scratch.partners, false, blank_of(tile, finite)}, finite,
          1, mixed);
  if (!tile.negatives.is_union && !job.unmixed) return met;
  TileJob raw = job;
  raw.in_loss = tile.negatives.is_union;
  if (!tile.negatives.is_union) raw.mixed = nullptr;
  raw.next_count = 0;
  return both(met, run_raw(tile, range, raw));
}

}  // namespace

Negatives draw_negatives(const CpuCall& call, const ColumnSource& queue, bool mixing) {
  const fnce_problem& p = call.problem.raw();
  const fnce_args& a = call.args.raw();
  Negatives negatives = {queue};
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
  const Tile tile = {call, negatives, scratch};
  job.next_rows = scratch.next_rows;
  job.next_count = list_next(call, negatives, next, scratch.next_rows);
  switch (negatives.mixing) {
    case Mixing::kNone: return run_raw(tile, range, job);
    case Mixing::kRows: return run_mixed_rows(tile, range, job);
    case Mixing::kScores: break;
  }
  // The last positions of the last block may be no whole cycle of 16: there the rows are mixed.
  const ColumnRange whole{range.first, range.count & ~15};
  const ColumnRange rest{range.first + whole.count, range.count - whole.count};
  RowColumns met;
  if (whole.count > 0) {
    met = run_mixed_scores(tile, whole, job);
    job.next_count = 0;
  }
  if (rest.count > 0) met = both(met, run_mixed_rows(tile, rest, job));
  return met;
}

}  // namespace fnce::cpu
