#include "cpu/pass.h"

#include <cstring>

#include "core/columns.h"
#include "core/status.h"
#include "core/types.h"
#include "cpu/pool.h"
#include "cpu/tiles.h"
#include "math/lse.h"
#include "math/stats.h"

namespace fnce::cpu {
namespace {

constexpr int64_t kDimsPerMerge = 64;  // features of a panel merged by one parallel task

struct Pass {
  const CpuCall& call;
  const PassRequest& options;
  const fnce_anchors& anchors;
  const PartialView& partial;
  Negatives queue, batch;

  const Negatives& negatives(int64_t chunk) const { return tiling().is_batch(chunk) ? batch : queue; }
  const Tiling& tiling() const { return call.tiling; }
  // Rows before a row block, padded and not.
  int64_t first_row(int64_t block) const { return block * tiling().row_block; }
  int64_t first_padded(int64_t block) const { return block * tiling().padded_rows(0); }
  // Statistics are merged against these positives.
  const float* positives(int set) const { return set == 0 ? anchors.pos : anchors.unmixed_pos; }
  bool gathers(int set) const { return set == 0 ? options.mixed : options.unmixed; }
  // Its scores may lie above the margin: those of the loss, and raw ones of which there are statistics.
  bool limits(int set) const { return call.problem.has_margin() && (set == 0 || options.unmixed); }
};

// The packed anchors from a padded row on.
void* packed_anchors(const Pass& pass, int64_t padded) {
  return element_at(pass.call.workspace.packed_anchors, padded * pass.tiling().d_padded, pass.call.tiles.product_type);
}

// What masks ask of the rows of a panel: the numbers of their ids, and how far a column may lie above their positives.
void pack_masks(const Pass& pass, int64_t row, int64_t rows, int64_t padded, int64_t width) {
  const Workspace& w = pass.call.workspace;
  const fnce_args& a = pass.call.args.raw();
  const int64_t* ids = pass.options.row_ids;
  for (int64_t i = 0; w.row_numbers && i < width; ++i)
    w.row_numbers[padded + i] = ids && i < rows ? number_of(pass.call, ids[row + i], kNoRowNumber) : kNoRowNumber;
  for (int set = 0; set < 2; ++set)
    for (int64_t i = 0; w.row_limits[set] && pass.limits(set) && i < width; ++i)
      w.row_limits[set][padded + i] = i < rows ? pass.positives(set)[row + i] + a.margin : 0.0f;
}

// The anchors of a panel in packed form, and the thresholds of its ranks.
void pack_panel(const Pass& pass, int64_t block, int panel) {
  const CpuCall& call = pass.call;
  const Tiling& t = pass.tiling();
  const Panels panels = t.panels(block);
  const int64_t lane = int64_t{panels.first_vector(panel)} * t.shape.lanes,
                width = int64_t{panels.width(panel)} * t.shape.lanes;
  const int64_t row = pass.first_row(block) + lane, padded = pass.first_padded(block) + lane;
  const int64_t rows = t.rows_of(block) - lane < width ? t.rows_of(block) - lane : width;
  const float* anchors = static_cast<const float*>(pass.anchors.anchor) + row * t.d;
  call.tiles.pack_anchors(anchors, t.d, static_cast<int>(rows), panels.width(panel), t.d_padded,
                          packed_anchors(pass, padded));
  for (int set = 0; set < 2; ++set) {
    if (!pass.gathers(set)) continue;
    for (int64_t i = 0; i < width; ++i) {
      const float pos = i < rows ? pass.positives(set)[row + i] : 0.0f;
      const float tie = i < rows ? tie_tolerance(call.kernels.norm(anchors + i * t.d, FNCE_FLOAT32, t.d), pos) : 0.0f;
      call.workspace.upper[set][padded + i] = pos + tie;
      call.workspace.lower[set][padded + i] = pos - tie;
    }
  }
  pack_masks(pass, row, rows, padded, width);
}

void pack_all_anchors(const Pass& pass) {
  const int64_t panels = pass.tiling().panels(0).count();
  parallel_for(pass.call.threads, pass.tiling().row_blocks * panels, [&](int64_t task, int) {
    const int64_t block = task / panels;
    const int panel = static_cast<int>(task % panels);
    if (panel < pass.tiling().panels(block).count()) pack_panel(pass, block, panel);
  });
}

void start_statistics(StatsLanes& s, int64_t padded) {
  for (int64_t i = 0; i < padded; ++i) {
    store_stats(RowStats<float>(), s, i);
    if (s.m) s.m[i] = kMinusInfinity;
    if (s.l) s.l[i] = 0;
  }
}

// Columns that count for all rows.
void meet(const TaskState& state, int64_t padded, const RowColumns& tile) {
  for (int64_t i = 0; i < padded; ++i) state.columns[i] += static_cast<int32_t>(tile.count);
  for (int64_t i = 0; i < padded && !tile.finite; ++i) state.not_finite[i] = 1;
}

// The state of a task's panels: from a lane of its row block on.
TaskState state_of(const Pass& pass, const PassTask& task, int64_t lane) {
  TaskState state = pass.call.workspace.task(task.block, task.chunk);
  state.o += lane * pass.tiling().d_padded;
  state.m += lane;
  state.l += lane;
  state.columns += lane;
  state.not_finite += lane;
  for (StatsLanes& s : state.stats) for_each_array<int32_t>([&](auto array) { s.*array += lane; });
  return state;
}

// A row of whose columns one is not finite has no statistic that is. Sums say so; comparisons may have lost it.
void end_statistics(const Pass& pass, const TaskState& state, int64_t padded) {
  for (int set = 0; set < 2; ++set) {
    if (!pass.gathers(set)) continue;
    const StatsLanes& s = state.stats[set];
    for (int64_t i = 0; i < padded; ++i) {
      if (is_finite(s.mean[i])) continue;
      s.m2[i] = s.min[i] = s.max[i] = __builtin_nanf("");
      if (set == 1) s.m[i] = s.l[i] = __builtin_nanf("");
    }
  }
}

// The sides of the tile of columns from `first` on, against the rows of a task.
PairTile pair_tile(const Pass& pass, const PassTask& task, int64_t first_padded, int64_t first,
                   const ThreadScratch& scratch) {
  const PairPass& p = *pass.options.pairs;
  const auto from = [](const PairSide& side, int64_t i) {
    return PairSide{side.numbers + i, side.bias + i, side.shift + i, side.factor + i};
  };
  PairTile tile = {from(p.rows, first_padded), from(p.columns, first), nullptr, nullptr, scratch.across};
  if (!p.m) return tile;
  tile.m = p.m + task.block * pass.tiling().n + first;
  tile.l = p.l + task.block * pass.tiling().n + first;
  return tile;
}

// The sums of the backward pass of pairs refer to no maximum.
void end_pairs(const TaskState& state, int64_t padded) {
  for (int64_t i = 0; i < padded; ++i) state.m[i] = 0;
}

void run_task(const Pass& pass, const PassTask& task, int worker) {
  const CpuCall& call = pass.call;
  const Tiling& t = pass.tiling();
  const Panels all = t.panels(task.block), panels = all.some(task.first_panel, task.end_panel);
  if (panels.count() == 0) return;
  const int64_t lane = int64_t{all.first_vector(task.first_panel)} * t.shape.lanes;
  const int64_t padded = int64_t{panels.vectors()} * t.shape.lanes, first_padded = pass.first_padded(task.block) + lane;
  const ThreadScratch scratch = call.workspace.thread(worker);
  TaskState state = state_of(pass, task, lane);
  if (pass.options.sums) std::memset(state.o, 0, static_cast<size_t>(padded * t.d_padded) * sizeof(float));
  for (int64_t i = 0; i < padded; ++i) {
    state.m[i] = kMinusInfinity;
    state.l[i] = 0;
    state.columns[i] = state.not_finite[i] = 0;
  }
  for (int set = 0; set < 2; ++set) {
    StatsLanes& s = state.stats[set];
    if (!pass.gathers(set)) continue;
    if (set == 0) s.m = s.l = nullptr;  // the columns' log-sum-exp is the loss's own
    s.upper = call.workspace.upper[set] + first_padded;
    s.lower = call.workspace.lower[set] + first_padded;
    start_statistics(s, padded);
  }
  TileJob job = {};
  job.packed = scratch.packed;
  job.d_padded = t.d_padded;
  job.scale = call.scale();
  job.in_loss = true;
  job.sums = pass.options.sums;
  job.mixed = pass.options.mixed ? &state.stats[0] : nullptr;
  job.unmixed = pass.options.unmixed ? &state.stats[1] : nullptr;
  job.panels = panels;
  job.anchors = packed_anchors(pass, first_padded);
  job.sums_o = state.o;
  job.m = state.m;
  job.l = state.l;
  job.weights = scratch.weights;
  job.raw_scores = scratch.raw_scores;
  const Negatives& negatives = pass.negatives(task.chunk);
  job.queue = negatives.source.rows;
  job.row_bytes = t.d * element_size(negatives.source.type);
  job.counted = state.columns;
  job.not_finite = state.not_finite;
  if (call.workspace.row_numbers) job.row_numbers = call.workspace.row_numbers + first_padded;
  for (int set = 0; set < 2; ++set)
    if (pass.limits(set)) job.row_limits[set] = call.workspace.row_limits[set] + first_padded;

  const int64_t end = t.end_column(task.chunk);
  const auto range_at = [&](int64_t first) {
    const int64_t columns = end - first < kColumnTile ? end - first : kColumnTile;
    return ColumnRange{first, static_cast<int>(columns > 0 ? columns : 0)};
  };
  call.tiles.enter();
  for (int64_t first = t.first_column(task.chunk); first < end; first += kColumnTile) {
    PairTile pairs;
    if (pass.options.pairs) {
      pairs = pair_tile(pass, task, first_padded, first, scratch);
      job.pairs = &pairs;
    }
    meet(state, padded, run_columns(call, negatives, range_at(first), range_at(first + kColumnTile), scratch, job));
  }
  call.tiles.leave();
  if (pass.options.pairs && !pass.options.pairs->m) return end_pairs(state, padded);
  // A column that is not finite leaves no finite result to the rows that have it. The vector code may have lost the NaN
  // on the way.
  for (int64_t i = 0; i < padded; ++i) {
    const RowColumns met = {state.columns[i], !state.not_finite[i]};
    state.m[i] = ended_maximum(state.m[i], met);
    state.l[i] = ended_sum(state.l[i], met);
  }
  if (call.problem.has_mask()) end_statistics(pass, state, padded);
}

// Statistics of one row over the chunks, in order, into the partial.
void merge_statistics(const Pass& pass, int64_t block, int64_t lane, int64_t row, int set) {
  const StatsView& out = pass.partial.stats[set];
  RowStats<double> merged;
  LogSum<double> sum;
  for (int64_t c = 0; c < pass.tiling().chunks; ++c) {
    const StatsLanes s = pass.call.workspace.task(block, c).stats[set];
    const RowStats<double> stats = load_stats<double>(s, lane);
    merged = merge(merged, stats);
    if (set == 1) sum = merge(sum, natural_log_sum(s.m[lane], s.l[lane], stats.count));
  }
  store_stats(rounded_stats(merged), out, row);
  if (!out.m) return;
  out.m[row] = static_cast<float>(sum.m);
  out.l[row] = static_cast<float>(sum.l * rounding_correction(sum.m, out.m[row]));
}

// One slice of features of one panel; the first slice also does what exists once per row.
void merge_panel(const Pass& pass, int64_t block, int panel, int64_t slice, int worker) {
  const CpuCall& call = pass.call;
  const Tiling& t = pass.tiling();
  const Panels panels = t.panels(block);
  const int64_t lane = int64_t{panels.first_vector(panel)} * t.shape.lanes;
  const int64_t row = pass.first_row(block) + lane, width = int64_t{panels.width(panel)} * t.shape.lanes;
  const int64_t rows = t.rows_of(block) - lane < width ? t.rows_of(block) - lane : width;
  const float *o[kMaxChunks], *m[kMaxChunks], *l[kMaxChunks];
  for (int64_t c = 0; c < t.chunks; ++c) {
    const TaskState s = call.workspace.task(block, c);
    o[c] = s.o + lane * t.d_padded;
    m[c] = s.m + lane;
    l[c] = s.l + lane;
  }
  MergeJob job = {};
  job.o = o;
  job.m = m;
  job.l = l;
  job.chunks = static_cast<int>(t.chunks);
  job.vectors = panels.width(panel);
  job.rows = static_cast<int>(rows);
  job.first_dim = slice * kDimsPerMerge;
  job.dims = t.d - job.first_dim < kDimsPerMerge ? t.d - job.first_dim : kDimsPerMerge;
  job.d = t.d;
  job.out_o = pass.options.sums ? pass.partial.o + row * t.d : nullptr;
  if (slice == 0) {
    job.out_m = pass.partial.m + row;
    job.out_l = pass.partial.l + row;
  }
  job.factors = call.workspace.thread(worker).factors;
  call.kernels.merge_panel(job);
  if (slice != 0) return;
  for (int set = 0; set < 2; ++set)
    for (int64_t i = 0; pass.gathers(set) && i < rows; ++i) merge_statistics(pass, block, lane + i, row + i, set);
}

void merge_chunks(const Pass& pass) {
  const Tiling& t = pass.tiling();
  const int64_t panels = t.panels(0).count(), slices = pass.options.sums ? divide_up(t.d, kDimsPerMerge) : 1;
  parallel_for(pass.call.threads, t.row_blocks * panels * slices, [&](int64_t task, int worker) {
    const int64_t block = task / slices / panels;
    const int panel = static_cast<int>(task / slices % panels);
    if (panel < t.panels(block).count()) merge_panel(pass, block, panel, task % slices, worker);
  });
}

// No columns: the start values.
void write_empty(const Pass& pass) {
  const Tiling& t = pass.tiling();
  for (int64_t i = 0; i < t.n; ++i) {
    pass.partial.m[i] = kMinusInfinity;
    pass.partial.l[i] = 0;
    for (int64_t c = 0; pass.options.sums && c < t.d; ++c) pass.partial.o[i * t.d + c] = 0;
    for (int set = 0; set < 2; ++set)
      if (pass.gathers(set)) merge_statistics(pass, 0, 0, i, set);
  }
}

}  // namespace

void check_permutation(const CpuCall& call) {
  const fnce_args& a = call.args.raw();
  uint32_t* seen = call.workspace.seen;
  if (!(a.checks & FNCE_CHECK_PERMUTATION) || !a.permutation || !seen) return;
  const int64_t k = call.problem.k();
  std::memset(seen, 0, static_cast<size_t>((k + 31) / 32) * sizeof(uint32_t));
  for (int64_t j = 0; j < k; ++j) {
    const int32_t to = a.permutation[j];
    const auto field = [&] { return "args.permutation[" + to_text(j) + "]"; };
    if (to < 0 || to >= k) invalid(field(), to_text(int64_t{to}), "0 .. " + to_text(k - 1) + ", each once");
    if (seen[to / 32] >> (to % 32) & 1)
      invalid(field(), to_text(int64_t{to}) + " a second time", "each of 0 .. k-1 once");
    seen[to / 32] |= 1u << (to % 32);
  }
}

void run_pass(const CpuCall& call, const PassRequest& options, const fnce_anchors& anchors,
              const PartialView& partial) {
  Pass pass = {call, options, anchors, partial, draw_negatives(call, options.queue, options.mixing), {options.batch}};
  if (call.tiling.chunks == 0) return write_empty(pass);
  if (options.row_ids) number_rows(call, options.row_ids);
  pack_all_anchors(pass);
  parallel_for(call.threads, call.schedule.tasks(),
               [&](int64_t task, int worker) { run_task(pass, call.schedule.task(task), worker); });
  merge_chunks(pass);
}

}  // namespace fnce::cpu
