#include "support/pairs.h"

#include <cmath>
#include <numeric>
#include <stdexcept>

#include "support/products.h"
#include "support/random_case.h"

namespace support {
namespace {

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

// One direction: the rows of `side` against those of the other.
oracle::Inputs direction(const PairsCase& c, int side) {
  const fnce_problem& p = c.problem;
  const int other = 1 - side;
  oracle::Inputs in;
  in.n = in.c = p.n;
  in.d = p.d;
  in.x_q = doubles(c.x[side]);
  in.x_k = in.x_c = doubles(c.x[other]);
  in.weight = doubles(c.weight);
  in.temperature = c.temperature;
  in.epsilon = c.epsilon;
  in.normalize = p.normalize != 0;
  in.reduction = p.reduction == FNCE_REDUCTION_NONE  ? oracle::Reduction::kNone
                 : p.reduction == FNCE_REDUCTION_SUM ? oracle::Reduction::kSum
                                                     : oracle::Reduction::kMean;
  in.products = products_of(Plan(p).info().products);
  in.queue_type = in.products == oracle::Products::kBfloat16 ? oracle::Element::kBfloat16 : oracle::Element::kFloat32;
  in.gradient_type = element_of(p.gradient_type);
  in.query_ids = c.ids[side];
  in.batch_ids = c.ids[other];
  if (!p.id_mask) {
    in.query_ids.resize(static_cast<size_t>(p.n));
    std::iota(in.query_ids.begin(), in.query_ids.end(), 0);
    in.batch_ids = in.query_ids;
  }
  in.with_bias = p.column_bias != 0;
  in.batch_bias = doubles(c.bias[other]);
  in.upstream = doubles(c.upstream);
  return in;
}

template <class T>
Buffer<T> buffer(const std::vector<T>& values) {
  return Buffer<T>(values);
}

// Device memory of a case.
struct PairsMemory {
  explicit PairsMemory(const PairsCase& c)
      : x{Elements(c.problem.feature_type, c.x[0]), Elements(c.problem.feature_type, c.x[1])},
        weight(c.weight),
        upstream(c.upstream),
        temperature(std::vector<float>{c.temperature}),
        ids{buffer(c.ids[0]), buffer(c.ids[1])},
        bias{buffer(c.bias[0]), buffer(c.bias[1])},
        loss(c.problem.reduction == FNCE_REDUCTION_NONE ? c.problem.n : 1),
        log_sum_exp{Buffer<float>(c.problem.n), Buffer<float>(c.problem.n)},
        gradient{Elements(c.problem.gradient_type, c.want[0] ? c.problem.n * c.problem.d : 0),
                 Elements(c.problem.gradient_type, c.want[1] ? c.problem.n * c.problem.d : 0)},
        dtemperature(c.want[2] ? 1 : 0) {}

  template <class Memory>
  static auto pointer(const Memory& memory) {
    return memory.count() > 0 ? memory.get() : nullptr;
  }

  fnce_pairs pairs(const PairsCase& c) const {
    fnce_pairs p;
    require_ok(fnce_pairs_init(&p, sizeof p));
    p.x_a = x[0].get();
    p.x_b = x[1].get();
    p.weight = pointer(weight);
    p.a_ids = pointer(ids[0]);
    p.b_ids = pointer(ids[1]);
    p.a_bias = pointer(bias[0]);
    p.b_bias = pointer(bias[1]);
    p.temperature = c.temperature_by_pointer ? -1.0f : c.temperature;
    p.temperature_pointer = c.temperature_by_pointer ? temperature.get() : nullptr;
    p.epsilon = c.epsilon;
    p.loss = loss.get();
    p.a_log_sum_exp = log_sum_exp[0].get();
    p.b_log_sum_exp = log_sum_exp[1].get();
    p.da = pointer(gradient[0]);
    p.db = pointer(gradient[1]);
    p.dtemperature = pointer(dtemperature);
    return p;
  }

  PairsOutputs outputs() const {
    return {loss.values(),
            {log_sum_exp[0].values(), log_sum_exp[1].values()},
            {gradient[0].values(), gradient[1].values()},
            dtemperature.values()};
  }

  void check(const PairsCase& c) const {
    bool intact =
        loss.guards_intact() && dtemperature.guards_intact() && weight.holds(c.weight) && upstream.holds(c.upstream);
    for (int side = 0; side < 2; ++side)
      intact = intact && x[side].holds(c.x[side]) && x[side].guards_intact() && ids[side].holds(c.ids[side]) &&
               bias[side].holds(c.bias[side]) && log_sum_exp[side].guards_intact() && gradient[side].guards_intact();
    if (!intact) throw std::runtime_error("a symmetric call overran its memory or changed an input");
  }

  Elements x[2];
  Buffer<float> weight, upstream, temperature;
  Buffer<int64_t> ids[2];
  Buffer<float> bias[2], loss, log_sum_exp[2];
  Elements gradient[2];
  Buffer<float> dtemperature;
};

// The part of a gradient, [N,D], that each source gives: of the rows as queries, as keys and as columns.
template <class T>
std::vector<T> gradient_of(const PairsCase& c, const std::vector<T>& dq, const std::vector<T>& dk,
                           const std::vector<T>& dx_c, bool magnitudes) {
  std::vector<T> out(dq.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const double given = c.upstream[c.upstream.size() == 1 ? 0 : i / static_cast<size_t>(c.problem.d)];
    const T upstream = static_cast<T>(magnitudes ? std::abs(given) : given);
    const T direct = given == 0 ? T(0) : upstream * (dq[i] + dk[i]);
    out[i] = (direct + dx_c[i]) / 2;
  }
  return out;
}

template <class T>
T temperature_of(const PairsCase& c, const std::vector<T>& a, const std::vector<T>& b, bool magnitudes) {
  T out = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double given = c.upstream[c.upstream.size() == 1 ? 0 : i];
    if (given != 0) out += static_cast<T>(magnitudes ? std::abs(given) : given) * (a[i] + b[i]) / 2;
  }
  return out;
}

template <class T>
std::vector<T> half_of_both(const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<T> out(a.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = (a[i] + b[i]) / 2;
  return out;
}

Verdict compare_losses(const PairsTruth& t, const PairsOutputs& actual) {
  const Truth &a = t.from[0], &b = t.from[1];
  const int64_t n = a.inputs.n;
  const std::vector<double> truth = half_of_both(a.exact.loss, b.exact.loss);
  const std::vector<float> naive = half_of_both(a.naive.loss, b.naive.loss);
  std::vector<double> condition = half_of_both(a.condition.loss, b.condition.loss);
  std::vector<double> engine = half_of_both(a.condition.rounding.loss, b.condition.rounding.loss);
  const bool none = a.inputs.reduction == oracle::Reduction::kNone;
  const double rows = a.inputs.reduction == oracle::Reduction::kMean ? double(n) : 1.0;
  if (!none) condition = {sum(condition) / rows}, engine = {sum(engine) / rows};
  return compare_rows({"loss", none ? n : 1, 1, &truth, &naive, &condition, &engine}, actual.loss);
}

Verdict compare_gradient(const PairsCase& c, const PairsTruth& t, const PairsOutputs& actual, int side) {
  const Truth &own = t.from[side], &other = t.from[1 - side];
  const std::vector<double> truth = gradient_of(c, own.exact.dq, other.exact.dk, other.exact.dx_c, false);
  const std::vector<float> naive = gradient_of(c, own.naive.dq, other.naive.dk, other.naive.dx_c, false);
  const std::vector<double> condition =
      gradient_of(c, own.condition.dq, other.condition.dk, other.condition.dx_c, true);
  const oracle::EngineRounding &mine = own.condition.rounding, &theirs = other.condition.rounding;
  const std::vector<double> engine = gradient_of(c, mine.dq, theirs.dk, theirs.dx_c, true);
  return compare_rows({side == 0 ? "da" : "db", c.problem.n, c.problem.d, &truth, &naive, &condition, &engine,
                       own.inputs.gradient_type},
                      actual.gradient[side]);
}

Verdict compare_temperature(const PairsCase& c, const PairsTruth& t, const PairsOutputs& actual) {
  const Truth &a = t.from[0], &b = t.from[1];
  const std::vector<double> truth{temperature_of(c, a.exact.dtemperature_rows, b.exact.dtemperature_rows, false)};
  const std::vector<float> naive{temperature_of(c, a.naive.dtemperature_rows, b.naive.dtemperature_rows, false)};
  const std::vector<double> condition{
      temperature_of(c, a.condition.dtemperature_rows, b.condition.dtemperature_rows, true)};
  const std::vector<double> engine{
      temperature_of(c, a.condition.rounding.dtemperature_rows, b.condition.rounding.dtemperature_rows, true)};
  return compare_rows({"dtemperature", 1, 1, &truth, &naive, &condition, &engine}, actual.dtemperature);
}

}  // namespace

PairsCase make_pairs(int64_t n, int64_t d, uint64_t seed) {
  PairsCase c;
  c.problem = make_case(FNCE_PRESET_MOCO, n, 0, d).problem;
  c.problem.form = FNCE_FORM_SYMMETRIC;
  fill_pairs(c, seed);
  return c;
}

void fill_pairs(PairsCase& c, uint64_t seed) {
  Random random(seed);
  const fnce_problem& p = c.problem;
  Case features = make_case(FNCE_PRESET_MOCO, p.n, 0, p.d);
  set_types(features, p.feature_type, FNCE_FLOAT32, FNCE_FLOAT32);
  features.problem.normalize = p.normalize;
  features.problem.batch_columns = p.n;
  features.problem.id_mask = p.id_mask;
  features.problem.column_bias = p.column_bias;
  fill_inputs(features, random);
  fill_columns(features, random);
  c.x[0] = features.arrays.x_q;
  c.x[1] = features.arrays.x_k;
  c.ids[0] = features.arrays.query_ids;
  c.ids[1] = features.arrays.batch_ids;
  // Most pairs have one id.
  for (size_t i = 0; i < c.ids[1].size(); ++i)
    if (i % 5 != 0) c.ids[1][i] = c.ids[0][i];
  c.bias[0].clear();
  if (p.column_bias) {
    c.bias[0] = features.arrays.batch_bias;
    fill_columns(features, random);
  }
  c.bias[1] = features.arrays.batch_bias;
}

PairsOutputs run_pairs(const PairsCase& c, unsigned char garbage) {
  const Plan plan(c.problem);
  const PairsMemory memory(c);
  const fnce_pairs pairs = memory.pairs(c);
  const Buffer<unsigned char> workspace = make_workspace(plan, garbage);
  require_ok(fnce_symmetric(plan.get(), &pairs, workspace.get(), workspace.bytes(), device().stream()));
  for (const Elements& gradient : memory.gradient)
    if (!gradient.untouched()) throw std::runtime_error("fnce_symmetric wrote a gradient");
  const PairsOutputs forward = memory.outputs();
  const Buffer<unsigned char> other = make_workspace(plan, static_cast<unsigned char>(~garbage));
  require_ok(fnce_symmetric_backward(plan.get(), &pairs, memory.upstream.get(), memory.upstream.count(), other.get(),
                                     other.bytes(), device().stream()));
  memory.check(c);
  if (!workspace.guards_intact() || !other.guards_intact()) throw std::runtime_error("a workspace was overrun");
  const PairsOutputs out = memory.outputs();
  if (!support::same_bits(out.loss, forward.loss) || !support::same_bits(out.log_sum_exp[0], forward.log_sum_exp[0]) ||
      !support::same_bits(out.log_sum_exp[1], forward.log_sum_exp[1]))
    throw std::runtime_error("fnce_symmetric_backward wrote an output of the loss");
  return out;
}

bool same_bits(const PairsOutputs& a, const PairsOutputs& b) {
  bool same = same_bits(a.loss, b.loss) && same_bits(a.dtemperature, b.dtemperature);
  for (int side = 0; side < 2; ++side)
    same = same && same_bits(a.log_sum_exp[side], b.log_sum_exp[side]) && same_bits(a.gradient[side], b.gradient[side]);
  return same;
}

PairsTruth::PairsTruth(const PairsCase& c) : from{Truth(direction(c, 0)), Truth(direction(c, 1))} {}

Verdict compare_pairs(const PairsCase& c, const PairsTruth& t, const PairsOutputs& actual) {
  Verdict verdict = compare_losses(t, actual);
  const char* names[2] = {"a_log_sum_exp", "b_log_sum_exp"};
  for (int side = 0; side < 2; ++side) {
    const Truth& own = t.from[side];
    verdict.merge(compare_rows({names[side], c.problem.n, 1, &own.exact.normalizer, &own.naive.normalizer,
                                &own.condition.normalizer, &own.condition.rounding.normalizer},
                               actual.log_sum_exp[side]));
    if (c.want[side]) verdict.merge(compare_gradient(c, t, actual, side));
  }
  if (c.want[2]) verdict.merge(compare_temperature(c, t, actual));
  return verdict;
}

}  // namespace support
