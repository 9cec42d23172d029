#include "cpu/symmetric.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/columns.h"
#include "core/types.h"
#include "cpu/pass.h"
#include "cpu/pool.h"
#include "math/row.h"

namespace fnce::cpu {
namespace {

constexpr float kInfinity = __builtin_huge_valf(), kNan = __builtin_nanf("");
constexpr float kNothing = 1e30f;  // the log-sum-exp of a row to which nothing comes from above: no weight is left

// The columns of a softmax are summed per row block, so that there are blocks enough for some threads, and few enough
// to merge.
constexpr int64_t kBlocks = 8, kLeastRows = 192;

int64_t most_rows(int64_t n) { return std::clamp(n / kBlocks, kLeastRows, kMaxRowBlock); }

// One side against the other: what a pass knows of them.
Problem problem_of_pass(const Problem& problem, int32_t product_type) {
  const fnce_problem& from = problem.raw();
  fnce_problem p = preset_problem(FNCE_PRESET_MOCO);
  p.n = p.k = from.n;
  p.d = from.d;
  p.feature_type = from.feature_type;
  p.queue_type = product_type;
  p.normalize = from.normalize;
  p.threads = from.threads;
  p.id_mask = p.column_bias = 1;
  return Problem(&p);
}

Args args_of(const fnce_pairs& pairs, const Problem& problem) {
  fnce_args a = default_args();
  a.x_q = pairs.x_a;
  a.x_k = pairs.x_b;
  a.temperature = pairs.temperature;
  a.epsilon = pairs.epsilon;
  return Args(&a, problem, CallKind::kPrep, true);
}

// w = 1 - p+ of a row, equation (8), from its log-sum-exp and from the sum of the shares of its columns. Either is a
// difference of nearly equal numbers where the other is none.
double pushed(double log_sum_exp, double positive, double shares) {
  const double loss = log_sum_exp - positive;
  return loss > 1.0 ? -std::expm1(-loss) : shares;
}

bool all_finite(const float* x, int64_t count) {
  float check = 0;
  for (int64_t c = 0; c < count; ++c) check += nan_unless_finite(x[c]);
  return check == 0;
}

}  // namespace

// The pieces of a call's memory; with base = nullptr it only counts. Sides are a and b.
struct Symmetric::Memory {
  Memory(void* base, const Symmetric& plan) {
    const fnce_problem& p = plan.pass_problem_.raw();
    const auto n = static_cast<uint64_t>(p.n), d = static_cast<uint64_t>(p.d), padded = n + kColumnTile;
    const int32_t type = plan.tiles_.product_type;
    Carver carver(base);
    for (int side = 0; side < 2; ++side) {
      rows[side] = carver.take<float>(n * d);
      typed[side] = rows[side];
      if (type != FNCE_FLOAT32)
        typed[side] = carver.take<unsigned char>(n * d * static_cast<uint64_t>(element_size(type)));
      numbers[side] = carver.take<int32_t>(padded);
      for (float** array : {&bias[side], &shift[side], &factor[side]}) *array = carver.take<float>(padded);
    }
    pos = carver.take<float>(n);
    column_bias = carver.take<float>(n);
    ids = plan.problem_.has_ids() ? nullptr : carver.take<int64_t>(n);
    const uint64_t blocks = static_cast<uint64_t>(plan.tiling_.row_blocks);
    column_m = carver.take<float>(blocks * n);
    column_l = carver.take<float>(blocks * n);
    partial = carver.take<unsigned char>(partial_layout(p.n, p.d, FNCE_SCORES_NONE).bytes);
    pass = base ? static_cast<unsigned char*>(base) + carver.used() : nullptr;
    pass_begin = carver.used();
  }
  PairSide side(int which) const { return {numbers[which], bias[which], shift[which], factor[which]}; }

  float* rows[2];                         // [N,D] in the values that are multiplied; zeros where a row is not finite
  void* typed[2];                         // the same in the type of the products
  int32_t* numbers[2];                    // [N] and padding, as PairSide has them
  float *bias[2], *shift[2], *factor[2];  // likewise
  float* pos;                             // [N] of features that are not rounded
  float* column_bias;                     // [N] of b as columns, NaN for rows that are not finite
  int64_t* ids;                           // [N] row numbers; null where ids are given
  float *column_m, *column_l;             // [row blocks, N]
  void* partial;                          // of side a; that of b lies in the workspace of the pass
  void* pass;
  uint64_t pass_begin;
};

// What the steps of a call share.
struct Symmetric::Step {
  Step(const Symmetric& plan, const PairsCall& symmetric)
      : call(symmetric),
        pairs(symmetric.pairs),
        memory(symmetric.workspace, plan),
        workspace(memory.pass, plan.pass_problem_, plan.tiling_, plan.tiles_, plan.threads_),
        args(args_of(symmetric.pairs, plan.pass_problem_)),
        context{plan.pass_problem_, args,         plan.kernels_,
                plan.tiles_,        plan.tiling_, symmetric.upstream ? plan.backward_ : plan.forward_,
                workspace,          plan.threads_} {}

  const int64_t* ids(int side) const { return memory.ids ? memory.ids : side == 0 ? pairs.a_ids : pairs.b_ids; }
  PartialView partial(int side) const {
    const fnce_problem& p = context.problem.raw();
    return PartialView(side == 0 ? memory.partial : workspace.partial, partial_layout(p.n, p.d, FNCE_SCORES_NONE));
  }
  RowInput row(int64_t i) const {
    const fnce_problem& p = context.problem.raw();
    RowInput input = features_alone(context);
    input.x_q = element_at(pairs.x_a, i * p.d, p.feature_type);
    input.x_k = element_at(pairs.x_b, i * p.d, p.feature_type);
    return input;
  }
  float weight(int64_t i) const { return pairs.weight ? pairs.weight[i] : 1.0f; }

  const PairsCall& call;
  const fnce_pairs& pairs;
  const Memory memory;
  const Workspace workspace;
  const Args args;
  const CpuCall context;
};

Symmetric::Symmetric(const Problem& problem, const Kernels& kernels, int threads)
    : problem_(problem),
      pass_problem_(problem_of_pass(problem, kernels.tiles_for(problem.raw().queue_type).product_type)),
      kernels_(kernels),
      tiles_(kernels.tiles_for(problem.raw().queue_type)),
      threads_(threads),
      tiling_(problem.n(), problem.n(), 0, problem.d(), tiles_.shape, most_rows(problem.n())),
      forward_(tiling_, 1, packing_cost(pass_problem_, tiles_)),
      backward_(tiling_, threads_, packing_cost(pass_problem_, tiles_)),
      bytes_(Memory(nullptr, *this).pass_begin + Workspace(nullptr, pass_problem_, tiling_, tiles_, threads_).bytes()) {
}

void Symmetric::run(const PairsCall& call) const {
  const Step step(*this, call);
  prepare(step);
  number_ids(step);
  if (call.upstream)
    backward(step);
  else
    forward(step);
}

// Equation (1) of both sides, the scores of the positives, and the biases of the sides as columns.
void Symmetric::prepare(const Step& step) const {
  const Memory& m = step.memory;
  const int64_t d = problem_.d();
  const float* given[2] = {step.pairs.a_bias, step.pairs.b_bias};
  const float temperature = step.pairs.temperature;
  parallel_rows(threads_, problem_.n(), [&](int64_t i, int worker) {
    PreparedRow state = step.workspace.thread(worker).row;
    kernels_.prepare_row(step.row(i), state);
    m.pos[i] = state.pos;
    if (m.ids) m.ids[i] = i;
    for (int side = 0; side < 2; ++side) {
      const float* exact = side == 0 ? state.q : state.k;
      float* row = m.rows[side] + i * d;
      const bool finite = all_finite(exact, d);
      if (finite)
        kernels_.scale_row(exact, FNCE_FLOAT32, 1.0f, d, row, FNCE_FLOAT32);
      else
        std::memset(row, 0, static_cast<size_t>(d) * sizeof(float));
      if (m.typed[side] != row - i * d) {
        void* typed = element_at(m.typed[side], i * d, tiles_.product_type);
        kernels_.scale_row(row, FNCE_FLOAT32, 1.0f, d, typed, tiles_.product_type);
        kernels_.scale_row(typed, tiles_.product_type, 1.0f, d, row, FNCE_FLOAT32);
      }
      const float bias = given[side] ? given[side][i] : 0.0f;
      const bool out = bias == -kInfinity, nameless = step.pairs.a_ids && step.ids(side)[i] == FNCE_NO_COLUMN;
      const float natural = out ? -kInfinity : finite && is_finite(bias) ? bias : kNan;
      if (side == 1) m.column_bias[i] = natural;
      m.bias[side][i] = nameless ? -kInfinity : natural * temperature;
    }
  });
}

void Symmetric::number_ids(const Step& step) const {
  const Memory& m = step.memory;
  const int64_t n = problem_.n();
  const int32_t none[2] = {kNoRowNumber, kNoNumber};
  number_rows(step.context, step.ids(0));
  parallel_rows(threads_, n, [&](int64_t i, int) {
    for (int side = 0; side < 2; ++side) m.numbers[side][i] = number_of(step.context, step.ids(side)[i], none[side]);
  });
  for (int side = 0; side < 2; ++side)
    for (int64_t i = n; i < n + kColumnTile; ++i) {
      m.numbers[side][i] = none[side];
      m.bias[side][i] = -kInfinity;
      m.shift[side][i] = kNothing;
      m.factor[side][i] = 0;
    }
}

void Symmetric::forward(const Step& step) const {
  const Memory& m = step.memory;
  const PairPass pairs = {m.side(0), m.side(1), m.column_m, m.column_l};
  PassRequest request = {};
  request.queue = {.rows = m.typed[1], .type = tiles_.product_type, .ids = step.ids(1), .bias = m.column_bias};
  request.row_ids = step.ids(0);
  request.pairs = &pairs;
  run_pass(step.context, request, {m.rows[0], nullptr, nullptr, {}}, step.partial(0));
  write_loss(step);
}

void Symmetric::write_loss(const Step& step) const {
  const Memory& m = step.memory;
  const int64_t n = problem_.n();
  const PartialView rows = step.partial(0);
  const float scale = step.context.scale();
  float* loss_rows = step.workspace.loss_rows;
  parallel_rows(threads_, n, [&](int64_t i, int worker) {
    PreparedRow state = step.workspace.thread(worker).row;
    kernels_.prepare_row(step.row(i), state);
    LogSum<double> over_rows;
    for (int64_t block = 0; block < tiling_.row_blocks; ++block) {
      const float top = m.column_m[block * n + i];
      over_rows = merge(over_rows, natural_log_sum(top, m.column_l[block * n + i], top != kNoColumn));
    }
    const float top = static_cast<float>(over_rows.m);
    const float sum = static_cast<float>(over_rows.l * rounding_correction(over_rows.m, top));
    const RowResult of_a = row_result(rows.m[i], rows.l[i], m.pos[i], scale, state.finite),
                    of_b = row_result(top, sum, m.pos[i], scale, state.finite);
    RowResult both = of_a;
    both.loss = 0.5 * (of_a.loss + of_b.loss);
    both.finite = of_a.finite && of_b.finite;
    loss_rows[i] = weighted_loss(both, step.weight(i));
    if (step.pairs.a_log_sum_exp) step.pairs.a_log_sum_exp[i] = static_cast<float>(row_log_sum_exp(of_a));
    if (step.pairs.b_log_sum_exp) step.pairs.b_log_sum_exp[i] = static_cast<float>(row_log_sum_exp(of_b));
  });
  if (!step.pairs.loss) return;
  const int32_t reduction = problem_.raw().reduction;
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    total += static_cast<double>(loss_rows[i]);
    if (reduction == FNCE_REDUCTION_NONE) step.pairs.loss[i] = loss_rows[i];
  }
  if (reduction == FNCE_REDUCTION_MEAN) total /= static_cast<double>(n);
  if (reduction != FNCE_REDUCTION_NONE) *step.pairs.loss = static_cast<float>(total);
}

// What comes from above to each pair, halved, as a multiple of the number returned, and the log-sum-exps in base 2.
double Symmetric::set_factors(const Step& step) const {
  const Memory& m = step.memory;
  const fnce_problem& p = problem_.raw();
  const auto factor_of = [&](int64_t i) {
    const float weight = upstream_factor(step.weight(i), p.reduction == FNCE_REDUCTION_MEAN, p.n);
    const double upstream = static_cast<double>(step.call.upstream[step.call.per_row ? i : 0]);
    return weight == 0.0f || upstream == 0.0 ? 0.0 : 0.5 * upstream * static_cast<double>(weight);
  };
  double unit = 0;
  for (int64_t i = 0; i < p.n; ++i)
    if (const double factor = std::fabs(factor_of(i)); is_finite(factor)) unit = std::max(unit, factor);
  if (unit == 0.0) unit = 1;
  const float* sums[2] = {step.pairs.a_log_sum_exp, step.pairs.b_log_sum_exp};
  for (int64_t i = 0; i < p.n; ++i)
    for (int side = 0; side < 2; ++side) {
      const double factor = factor_of(i);
      const float sum = sums[side][i];
      const bool finite = is_finite(factor) && is_finite(sum);
      m.factor[side][i] = finite ? static_cast<float>(factor / unit) : kNan;
      m.shift[side][i] = finite ? static_cast<float>(static_cast<double>(sum) * kLog2e) : kNan;
      if (factor != 0.0) continue;
      m.factor[side][i] = 0;
      m.shift[side][i] = kNothing;
    }
  return unit;
}

void Symmetric::backward(const Step& step) const {
  const double unit = set_factors(step);
  // The gradient of the temperature follows from the sums of either side.
  run_side(step, 0, step.pairs.da || (step.pairs.dtemperature && !step.pairs.db));
  run_side(step, 1, step.pairs.db);
  write_gradients(step, unit);
}

// The rows of a side against those of the other: 1 - p+ of each row, and the sums of its gradient.
void Symmetric::run_side(const Step& step, int side, bool sums) const {
  const Memory& m = step.memory;
  const PairPass pairs = {m.side(side), m.side(1 - side), nullptr, nullptr};
  PassRequest request = {};
  request.queue = {.rows = m.typed[1 - side], .type = tiles_.product_type};
  request.sums = sums;
  request.pairs = &pairs;
  run_pass(step.context, request, {m.rows[side], nullptr, nullptr, {}}, step.partial(side));
}

void Symmetric::write_gradients(const Step& step, double unit) const {
  const Memory& m = step.memory;
  const int64_t n = problem_.n(), d = problem_.d();
  const int32_t type = problem_.raw().gradient_type;
  const RowInput features = features_alone(step.context);
  const PartialView sums[2] = {step.partial(0), step.partial(1)};
  void* out[2] = {step.pairs.da, step.pairs.db};
  const double temperature = static_cast<double>(step.pairs.temperature), scale = unit / temperature;
  const double unit_score = static_cast<double>(step.context.scale()) * kLn2;  // 1 / temperature as the pass rounds it
  const float* log_sum_exp[2] = {step.pairs.a_log_sum_exp, step.pairs.b_log_sum_exp};
  // The side whose sums give the gradient of the temperature.
  const int side_of_temperature = step.pairs.db && !step.pairs.da ? 1 : 0;
  float* dtemperature = step.workspace.dtemperature_rows;
  parallel_rows(threads_, n, [&](int64_t i, int worker) {
    const ThreadScratch scratch = step.workspace.thread(worker);
    PreparedRow state = scratch.row;
    kernels_.prepare_row(step.row(i), state);
    // How much the positive pulls both rows of the pair. The temperature's gradient takes w from the shares that are in
    // O, also where the other is more precise: what all scores have in common must cancel.
    double pull = 0, pull_of_shares = 0;
    for (int side = 0; side < 2; ++side) {
      if (m.factor[side][i] == 0.0f) continue;
      const double factor = static_cast<double>(m.factor[side][i]), shares = static_cast<double>(sums[side].l[i]);
      pull += factor *
              pushed(static_cast<double>(log_sum_exp[side][i]), static_cast<double>(state.pos) * unit_score, shares);
      pull_of_shares += factor * shares;
    }
    dtemperature[i] = 0;
    for (int side = 0; side < 2; ++side) {
      const bool gives_temperature = step.pairs.dtemperature && side == side_of_temperature;
      if (!out[side] && !gives_temperature) continue;
      const float *o = sums[side].o + i * d, *own = side == 0 ? state.q : state.k,
                  *positive = side == 0 ? state.k : state.q;
      void* row = out[side] ? element_at(out[side], i * d, type) : nullptr;
      // A row to which nothing is sent has no gradient, whatever it holds.
      if (pull == 0.0 && std::all_of(o, o + d, [](float x) { return x == 0.0f; })) {
        if (row) std::memset(row, 0, static_cast<size_t>(d * element_size(type)));
        continue;
      }
      if (gives_temperature) {
        const double of_columns = static_cast<double>(kernels_.rounded_dot(own, false, o, FNCE_FLOAT32, d));
        dtemperature[i] =
            static_cast<float>(scale / temperature * (pull_of_shares * static_cast<double>(state.pos) - of_columns));
      }
      if (!row) continue;
      for (int64_t c = 0; c < d; ++c)
        scratch.gradient[c] =
            static_cast<float>(scale * (static_cast<double>(o[c]) - pull * static_cast<double>(positive[c])));
      kernels_.feature_gradient(features, side == 0 ? state.norm_q : state.norm_k, own, scratch.gradient, row, type);
    }
  });
  if (!step.pairs.dtemperature) return;
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += static_cast<double>(dtemperature[i]);
  *step.pairs.dtemperature = static_cast<float>(total);
}

}  // namespace fnce::cpu
