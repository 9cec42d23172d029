// Processes in one process: the loss in steps over shards.
#include "support/shards.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace support {
namespace {

template <class T>
std::vector<T> slice(const std::vector<T>& values, int64_t first, int64_t count) {
  if (values.empty()) return {};
  return {values.begin() + first, values.begin() + first + count};
}

std::vector<float> slice_lambda(const std::vector<float>& lambda, int32_t granularity, Range rows, int64_t d) {
  if (granularity == FNCE_LAMBDA_ROW) return slice(lambda, rows.first, rows.count);
  if (granularity == FNCE_LAMBDA_ELEMENT) return slice(lambda, rows.first * d, rows.count * d);
  return lambda;
}

float* floats(Bytes& partial, uint64_t offset) { return reinterpret_cast<float*>(partial.data() + offset); }

// The recipe for libraries that have only MAX and SUM: no statistics.
Bytes max_and_sum(std::vector<Bytes> partials, const fnce_layout& layout, int64_t n, int64_t d) {
  Bytes out = partials[0];
  for (int64_t i = 0; i < n; ++i) {
    float top = floats(partials[0], layout.m)[i];
    for (Bytes& p : partials) top = std::max(top, floats(p, layout.m)[i]);
    float l = 0;
    std::vector<float> o(static_cast<size_t>(d), 0.0f);
    for (Bytes& p : partials) {
      const float scale = std::exp(floats(p, layout.m)[i] - top);
      l += scale * floats(p, layout.l)[i];
      for (int64_t c = 0; c < d; ++c) o[c] += scale * floats(p, layout.o)[i * d + c];
    }
    floats(out, layout.m)[i] = top;
    floats(out, layout.l)[i] = l;
    std::copy(o.begin(), o.end(), floats(out, layout.o) + i * d);
  }
  return out;
}

// Device memory of partials: their merge, in place or not.
Bytes merge(const Plan& plan, const std::vector<Bytes>& partials, bool in_place) {
  std::vector<Buffer<unsigned char>> buffers;
  std::vector<const void*> pointers;
  for (const Bytes& partial : partials) buffers.emplace_back(partial);
  for (const auto& buffer : buffers) pointers.push_back(buffer.get());
  const Buffer<unsigned char> own(static_cast<int64_t>(partials[0].size()));
  const Buffer<unsigned char>& out = in_place ? buffers[0] : own;
  require_ok(fnce_merge(plan.get(), pointers.data(), static_cast<int32_t>(pointers.size()), out.get(), out.bytes(),
                        device().stream()));
  for (size_t i = in_place ? 1 : 0; i < buffers.size(); ++i)
    if (!buffers[i].holds(partials[i])) throw std::runtime_error("fnce_merge changed an input");
  if (!out.guards_intact()) throw std::runtime_error("fnce_merge overran its output");
  return out.values();
}

struct Anchors {
  explicit Anchors(const fnce_problem& p)
      : d(p.d),
        anchor(p.n * p.d),
        pos(p.scores & FNCE_SCORES_MIXED || p.margin_mask ? p.n : 0),
        unmixed_pos(p.scores & FNCE_SCORES_UNMIXED ? p.n : 0) {}
  fnce_anchors at(int64_t row) const {
    return {anchor.get() + row * d,
            pos.count() ? pos.get() + row : nullptr,
            unmixed_pos.count() ? unmixed_pos.get() + row : nullptr,
            {}};
  }
  int64_t d;
  Buffer<float> anchor, pos, unmixed_pos;
};

void prepare(const Case& whole, const std::vector<Range>& rows, Range columns, const Anchors& anchors) {
  for (const Range& range : rows) {
    const Case part = part_of(whole, range, columns);
    const Plan plan(part.problem);
    const Call call(part);
    const Buffer<unsigned char> workspace = make_workspace(plan);
    const fnce_anchors out = anchors.at(range.first);
    require_ok(fnce_prep(plan.get(), &call.args, &out, workspace.get(), workspace.bytes(), device().stream()));
    call.check_memory();
    if (!call.outputs_untouched()) throw std::runtime_error("fnce_prep wrote an output");
  }
  if (!anchors.anchor.guards_intact()) throw std::runtime_error("fnce_prep overran the anchors");
}

Bytes partial_of(const Case& part, const Anchors& anchors) {
  const Plan plan(part.problem);
  const Call call(part);
  const Buffer<unsigned char> workspace = make_workspace(plan);
  const Buffer<unsigned char> partial(static_cast<int64_t>(layout_of(plan).bytes));
  const fnce_anchors in = anchors.at(0);
  require_ok(fnce_partial(plan.get(), &call.args, &in, partial.get(), partial.bytes(), workspace.get(),
                          workspace.bytes(), device().stream()));
  call.check_memory();
  if (!call.outputs_untouched()) throw std::runtime_error("fnce_partial wrote an output");
  if (!partial.guards_intact()) throw std::runtime_error("fnce_partial overran its partial");
  return partial.values();
}

// dx_c of the part's batch columns, from the anchors of all rows: the features are not there.
std::vector<float> backward_of(const Case& part, const Anchors& anchors, const std::vector<float>& log_sum_exp) {
  const Plan plan(part.problem);
  Call call(part);
  call.args.x_q = call.args.x_k = nullptr;
  const Buffer<unsigned char> workspace = make_workspace(plan);
  const Buffer<float> sums(log_sum_exp), upstream(part.arrays.upstream);
  const Elements dx_c(part.problem.gradient_type, part.problem.batch_columns * part.problem.d);
  const fnce_anchors in = anchors.at(0);
  require_ok(columns_backward(plan, call.args, &in, sums.get(), upstream, dx_c.get(), workspace));
  call.check_memory();
  if (!call.outputs_untouched()) throw std::runtime_error("fnce_columns_backward wrote an output of the loss");
  if (!dx_c.guards_intact() || !workspace.guards_intact() || !sums.holds(log_sum_exp))
    throw std::runtime_error("fnce_columns_backward overran its memory");
  return dx_c.values();
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void append(Statistics& to, const Statistics& from) {
  append(to.pos, from.pos);
  append(to.neg_count, from.neg_count);
  append(to.neg_mean, from.neg_mean);
  append(to.neg_variance, from.neg_variance);
  append(to.neg_min, from.neg_min);
  append(to.neg_max, from.neg_max);
  append(to.neg_log_mean_exp, from.neg_log_mean_exp);
  append(to.n_greater, from.n_greater);
  append(to.n_greater_equal, from.n_greater_equal);
  append(to.entropy, from.entropy);
  append(to.dq_norm, from.dq_norm);
}

void append(Outputs& to, const Outputs& from) {
  append(to.loss, from.loss);
  append(to.dq, from.dq);
  append(to.dk, from.dk);
  append(to.dtemperature_rows, from.dtemperature_rows);
  append(to.dtemperature, from.dtemperature);
  append(to.log_sum_exp, from.log_sum_exp);
  append(to.mixed, from.mixed);
  append(to.unmixed, from.unmixed);
}

Outputs finish(const Case& part, const Bytes& partial) {
  const Plan plan(part.problem);
  const Call call(part);
  const Buffer<unsigned char> workspace = make_workspace(plan);
  const Buffer<unsigned char> in(partial);
  require_ok(
      fnce_finish(plan.get(), &call.args, in.get(), in.bytes(), workspace.get(), workspace.bytes(), device().stream()));
  call.check_memory();
  if (!in.holds(partial)) throw std::runtime_error("fnce_finish changed the partial");
  return call.outputs();
}

}  // namespace

std::vector<Range> ranges_of(const std::vector<int64_t>& counts) {
  std::vector<Range> out;
  int64_t first = 0;
  for (const int64_t count : counts) {
    out.push_back({first, count});
    first += count;
  }
  return out;
}

Case part_of(const Case& whole, Range rows, Range columns, Range batch) {
  Case part = whole;
  fnce_problem& p = part.problem;
  p.n = rows.count;
  p.row_offset += rows.first;
  p.k = columns.count;
  p.k_global = whole.problem.k;
  p.column_offset = columns.first;
  const int64_t d = p.d;
  part.arrays.x_q = slice(whole.arrays.x_q, rows.first * d, rows.count * d);
  part.arrays.x_k = slice(whole.arrays.x_k, rows.first * d, rows.count * d);
  part.arrays.queue = slice(whole.arrays.queue, columns.first * d, columns.count * d);
  part.arrays.weight = slice(whole.arrays.weight, rows.first, rows.count);
  p.batch_columns = batch.count;
  part.arrays.x_c = slice(whole.arrays.x_c, batch.first * d, batch.count * d);
  part.arrays.query_ids = slice(whole.arrays.query_ids, rows.first, rows.count);
  part.arrays.column_ids = slice(whole.arrays.column_ids, columns.first, columns.count);
  part.arrays.batch_ids = slice(whole.arrays.batch_ids, batch.first, batch.count);
  part.arrays.column_bias = slice(whole.arrays.column_bias, columns.first, columns.count);
  part.arrays.batch_bias = slice(whole.arrays.batch_bias, batch.first, batch.count);
  if (whole.arrays.upstream.size() > 1) part.arrays.upstream = slice(whole.arrays.upstream, rows.first, rows.count);
  part.arrays.lambda_pos = slice_lambda(whole.arrays.lambda_pos, p.lambda_pos, rows, d);
  part.arrays.lambda_neg = slice_lambda(whole.arrays.lambda_neg, p.lambda_neg, columns, d);
  return part;
}

fnce_layout layout_of(const Plan& plan) {
  fnce_layout layout;
  require_ok(fnce_partial_layout(plan.get(), &layout, sizeof layout));
  return layout;
}

namespace {

// The batch columns of each of `count` processes.
std::vector<Range> batch_ranges(int64_t batch, size_t count) {
  std::vector<int64_t> counts;
  for (size_t s = 0; s < count; ++s) {
    const auto at = [&](size_t i) { return batch * static_cast<int64_t>(i) / static_cast<int64_t>(count); };
    counts.push_back(at(s + 1) - at(s));
  }
  return ranges_of(counts);
}

// The rows of `part` out of a partial of `plan`.
Bytes rows_of_partial(const Bytes& partial, const Plan& plan, const Case& part, Range rows) {
  const Plan own(part.problem);
  const Buffer<unsigned char> from(partial), out(static_cast<int64_t>(layout_of(own).bytes));
  require_ok(
      fnce_partial_rows(plan.get(), from.get(), rows.first, own.get(), out.get(), out.bytes(), device().stream()));
  if (!from.holds(partial)) throw std::runtime_error("fnce_partial_rows changed its input");
  if (!out.guards_intact()) throw std::runtime_error("fnce_partial_rows overran its output");
  return out.values();
}

}  // namespace

StepResults run_steps(const Case& whole, const std::vector<int64_t>& row_counts,
                      const std::vector<int64_t>& column_counts, Reduce reduce) {
  const std::vector<Range> rows = ranges_of(row_counts), columns = ranges_of(column_counts);
  const std::vector<Range> batch = batch_ranges(whole.problem.batch_columns, columns.size());
  const Range all{0, whole.problem.n};
  const bool with_dx_c = whole.want.dx_c && whole.problem.batch_columns > 0;
  const Anchors anchors(whole.problem);
  prepare(whole, rows, columns[0], anchors);
  StepResults steps;
  steps.anchor = anchors.anchor.values();
  steps.pos = anchors.pos.values();
  steps.unmixed_pos = anchors.unmixed_pos.values();
  for (size_t s = 0; s < columns.size(); ++s)
    steps.partials.push_back(partial_of(part_of(whole, all, columns[s], batch[s]), anchors));
  const Plan plan(part_of(whole, all, columns[0]).problem);
  steps.layout = layout_of(plan);
  steps.merged = reduce == Reduce::kMaxAndSum
                     ? max_and_sum(steps.partials, steps.layout, whole.problem.n, whole.problem.d)
                     : merge(plan, steps.partials, reduce == Reduce::kMergeInPlace);
  for (const Range& range : rows) {
    Case part = part_of(whole, range, columns[0]);
    part.want.log_sum_exp |= with_dx_c;
    append(steps.outputs, finish(part, rows_of_partial(steps.merged, plan, part, range)));
  }
  for (size_t s = 0; with_dx_c && s < columns.size(); ++s)
    if (batch[s].count > 0)
      append(steps.outputs.dx_c,
             backward_of(part_of(whole, all, columns[s], batch[s]), anchors, steps.outputs.log_sum_exp));
  return steps;
}

Outputs run_in_steps(const Case& whole, const std::vector<int64_t>& row_counts,
                     const std::vector<int64_t>& column_counts, Reduce reduce) {
  return run_steps(whole, row_counts, column_counts, reduce).outputs;
}

}  // namespace support
