// finish and finish_scores against the oracle: losses, gradients, statistics; against the CPU backend: what becomes of
// numbers that are not finite.
#include <algorithm>
#include <array>

#include "cuda/shards.h"

namespace {

using namespace common_test;

// Everything a call writes, on either side.
struct Outputs {
  explicit Outputs(const fnce_problem& p)
      : loss(static_cast<size_t>(p.reduction == FNCE_REDUCTION_NONE ? p.n : 1), 77.0f),
        dtemperature_rows(static_cast<size_t>(p.n), 77.0f),
        dtemperature(1, 77.0f),
        dq(static_cast<size_t>(p.n * p.d * 4)),
        dk(dq),
        floats(2, std::vector<std::vector<float>>(8, dtemperature_rows)),
        counts(2, std::vector<std::vector<int64_t>>(3, std::vector<int64_t>(static_cast<size_t>(p.n), 77))) {}
  fnce_score_buffers buffers(size_t set) {
    auto& f = floats[set];
    auto& c = counts[set];
    return {f[0].data(),
            c[0].data(),
            f[1].data(),
            f[2].data(),
            f[3].data(),
            f[4].data(),
            f[5].data(),
            c[1].data(),
            c[2].data(),
            set == 0 ? f[6].data() : nullptr,
            set == 0 ? f[7].data() : nullptr,
            {}};
  }
  void point(fnce_args& a) {
    a.loss = loss.data();
    a.dtemperature_rows = dtemperature_rows.data();
    a.dtemperature = dtemperature.data();
    a.dq = dq.data();
    a.dk = dk.data();
    a.mixed = buffers(0);
    a.unmixed = buffers(1);
  }
  std::vector<float> loss, dtemperature_rows, dtemperature;
  Bytes dq, dk;
  std::vector<std::vector<std::vector<float>>> floats;  // pos, mean, variance, min, max, log-mean-exp, entropy, dq norm
  std::vector<std::vector<std::vector<int64_t>>> counts;
};

std::vector<float> decode(const Bytes& bytes, int64_t count, int32_t type) {
  std::vector<float> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out[static_cast<size_t>(i)] = element(bytes.data(), i, type);
  return out;
}

support::Statistics statistics_of(const Outputs& out, size_t set) {
  const auto& f = out.floats[set];
  const auto& c = out.counts[set];
  return {f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], c[0], c[1], c[2]};
}

support::Outputs values_of(const fnce_problem& p, const Outputs& out) {
  return {.loss = out.loss,
          .dq = decode(out.dq, p.n * p.d, p.gradient_type),
          .dk = decode(out.dk, p.n * p.d, p.gradient_type),
          .dtemperature_rows = out.dtemperature_rows,
          .dtemperature = out.dtemperature,
          .log_sum_exp = {},
          .dx_c = {},
          .mixed = statistics_of(out, 0),
          .unmixed = statistics_of(out, 1)};
}

void check_outputs(const Setup& s, const support::Truth& truth, const Outputs& out) {
  FNCE_CHECK_VERDICT(support::compare_all(case_of(s), truth, values_of(s.p, out)));
}

Outputs cpu_finish(const Setup& s, Aligned& partial) {
  Outputs out(s.p);
  fnce_args a = s.a;
  out.point(a);
  CpuPlan plan(s.p);
  FNCE_REQUIRE_OK(
      fnce_finish(plan.plan, &a, partial.get(), partial.bytes, plan.workspace.get(), plan.workspace.bytes, nullptr));
  return out;
}

Outputs gpu_finish(Setup& s, const SplitPartials& from, const float* temperature = nullptr) {
  Outputs out(s.p);
  fnce_args a = s.a;
  out.point(a);
  std::vector<float> loss_rows(static_cast<size_t>(s.p.n), kNan), dtemperature_rows(loss_rows);
  uint32_t ticket = 0;
  FinishParams params = {.rows = s.rows(Operand::kFloat32),
                         .from = from,
                         .temperature = {a.temperature, temperature},
                         .reduction = s.p.reduction,
                         .gradient_type = s.p.gradient_type,
                         .weight = a.weight,
                         .loss = a.loss,
                         .dq = a.dq,
                         .dk = a.dk,
                         .dtemperature_rows = a.dtemperature_rows,
                         .dtemperature = a.dtemperature,
                         .mixed = a.mixed,
                         .unmixed = a.unmixed,
                         .needs_gradient = 1,
                         .loss_rows = loss_rows.data(),
                         .dtemperature_row_sums = dtemperature_rows.data(),
                         .ticket = &ticket};
  launch(finish_kernel(s.p.d), {static_cast<unsigned>(s.p.n)}, params, nullptr);
  return out;
}

}  // namespace

TEST_CASE("common finish: losses, gradients and statistics are right") {
  for (const int64_t d : {1, 70, 1024, 1030})
    for (const int32_t granularity :
         {FNCE_LAMBDA_NONE, FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW, FNCE_LAMBDA_DIMENSION, FNCE_LAMBDA_ELEMENT})
      for (const int32_t anchor : {FNCE_ANCHOR_MIXED, FNCE_ANCHOR_QUERY}) {
        Setup s = make_setup(5, 64, d, granularity, anchor == FNCE_ANCHOR_MIXED ? FNCE_SAMPLED : FNCE_GIVEN, 63);
        s.p.anchor = anchor;
        s.p.normalize = granularity != FNCE_LAMBDA_DIMENSION;
        s.p.renormalize_pos = granularity >= FNCE_LAMBDA_ROW;
        s.p.reduction = granularity % 3;
        s.p.gradient_type = 1 + (granularity + anchor) % 3;
        s.p.feature_type = 1 + granularity % 3;
        s.a.temperature = 0.2f;
        if (granularity == FNCE_LAMBDA_CALL) s.weight = {1.0f, 0.0f, 2.5f, -1.0f, 0.3f};
        s.inputs();
        INFO("D " << d << ", granularity " << granularity << ", anchor " << anchor);
        Shards shards(s, 3);
        const support::Truth truth = truth_of(s);
        // The gradient of one feature, as a unit row, is a difference of equal numbers.
        if (d > 1) CHECK(support::gradient_has_signal(truth));
        check_outputs(s, truth, gpu_finish(s, one_split(shards)));
        SplitArrays splits(shards, true);
        check_outputs(s, truth, gpu_finish(s, splits.partials(shards, true)));
      }
}

TEST_CASE("common finish: without columns loss and gradients are exact zeros") {
  for (const int32_t reduction : {FNCE_REDUCTION_NONE, FNCE_REDUCTION_MEAN}) {
    Setup s = make_setup(4, 0, 33, FNCE_LAMBDA_CALL, FNCE_SAMPLED, 64);
    s.p.reduction = reduction;
    s.inputs();
    Shards shards(s, 2);
    const Outputs gpu = gpu_finish(s, one_split(shards));
    check_outputs(s, truth_of(s), gpu);
    for (const float loss : gpu.loss) CHECK(loss == 0.0f);
    for (const float x : decode(gpu.dq, 4 * 33, FNCE_FLOAT32)) CHECK(x == 0.0f);
  }
}

TEST_CASE("common finish: a row without columns beside rows that have some") {
  Setup s = make_setup(3, 64, 33, FNCE_LAMBDA_CALL, FNCE_SAMPLED, 71);
  s.inputs();
  Shards shards(s, 2);
  const PartialView partial = shards.view(shards.merged);
  const auto finished = [&] { return std::array{gpu_finish(s, one_split(shards)), cpu_finish(s, shards.merged)}; };
  const auto before = finished();
  partial.m[1] = kMinusInfinity;
  partial.l[1] = 0;
  std::fill_n(partial.o + 33, 33, 0.0f);
  for (const StatsView& stats : partial.stats) store_stats(RowStats<float>(), stats, 1);
  partial.stats[1].m[1] = kMinusInfinity;
  partial.stats[1].l[1] = 0;
  const auto after = finished();
  for (size_t backend = 0; backend < after.size(); ++backend) {
    const Outputs& out = after[backend];
    CHECK(out.loss[1] == 0.0f);
    CHECK(out.dtemperature_rows[1] == 0.0f);
    for (int64_t c = 33; c < 66; ++c) CHECK(element(out.dq.data(), c, FNCE_FLOAT32) == 0.0f);
    for (const auto& counts : out.counts) CHECK(counts[0][1] == 0);
    CHECK(std::isinf(out.floats[0][5][1]));
    CHECK(out.counts[0][0][0] == 64);
    // The others do not notice.
    for (const size_t row : {0u, 2u}) CHECK(out.loss[row] == before[backend].loss[row]);
  }
}

TEST_CASE("common finish: numbers that are not finite do what they do on the CPU") {
  const int64_t n = 6, d = 40;
  for (int place = 0; place < 9; ++place)
    for (const float poison : {kNan, HUGE_VALF, -HUGE_VALF})
      for (const float weight : {1.0f, 0.0f})
        for (const int32_t reduction : {FNCE_REDUCTION_NONE, FNCE_REDUCTION_SUM}) {
          Setup s = make_setup(n, 64, d, place % 2 ? FNCE_LAMBDA_ELEMENT : FNCE_LAMBDA_ROW, FNCE_GIVEN, 65);
          s.p.reduction = reduction;
          s.weight.assign(n, 1.0f);
          s.inputs();
          Shards shards(s, 2);
          const PartialView partial = shards.view(shards.merged);
          s.weight[2] = weight;
          s.inputs();
          const support::Truth sizes = truth_of(s);
          if (place == 0) s.x_q[2 * d + 3] = poison;
          if (place == 1) s.x_k[2 * d + 39] = poison;
          if (place == 2) s.lambda_pos[2] = poison;
          if (place == 3) s.lambda_pos[2 * d + 1] = poison;
          if (place == 4) partial.m[2] = poison;
          if (place == 5) partial.l[2] = poison;
          for (int set = 0; place == 6 && set < 2; ++set) {
            partial.stats[set].mean[2] = poison;
            partial.stats[set].min[2] = partial.stats[set].max[2] = kNan;  // as whoever makes a partial leaves them
          }
          if (place == 7 && weight != 0) s.weight[2] = poison;
          if (place == 8) std::fill_n(s.x_q.begin() + 2 * d, d, 1e20f);  // the norm overflows
          s.inputs();
          INFO("place " << place << ", " << poison << ", weight " << weight);
          const Outputs gpu = gpu_finish(s, one_split(shards)), cpu = cpu_finish(s, shards.merged);
          FNCE_CHECK_VERDICT(support::compare_pair(case_of(s), sizes, values_of(s.p, gpu), values_of(s.p, cpu)));
        }
}

TEST_CASE("common finish: a wrong temperature behind a pointer gives NaN, but for rows of weight 0") {
  for (const float temperature : {0.0f, -0.1f, kNan, HUGE_VALF}) {
    Setup s = make_setup(3, 64, 20, FNCE_LAMBDA_ROW, FNCE_SAMPLED, 66);
    s.weight = {1.0f, 0.0f, 1.0f};
    s.inputs();
    Shards shards(s, 1);
    const Outputs out = gpu_finish(s, one_split(shards), &temperature);
    for (size_t i = 0; i < 3; ++i) {
      const bool zero = i == 1;
      CHECK((zero ? out.loss[i] == 0.0f : std::isnan(out.loss[i])));
      CHECK((zero ? out.dtemperature_rows[i] == 0.0f : std::isnan(out.dtemperature_rows[i])));
      const float dq = element(out.dq.data(), static_cast<int64_t>(20 * i), FNCE_FLOAT32);
      CHECK((zero ? dq == 0.0f : std::isnan(dq)));
      CHECK(std::isnan(out.floats[0][5][i]));
      CHECK(std::isnan(out.floats[0][6][i]));
      CHECK(std::isfinite(out.floats[0][0][i]));
    }
    CHECK(std::isnan(out.dtemperature[0]));
  }
}

TEST_CASE("common finish: only what is asked for is written") {
  Setup s = make_setup(3, 64, 20, FNCE_LAMBDA_ROW, FNCE_SAMPLED, 67);
  s.p.scores = FNCE_SCORES_NONE;
  s.inputs();
  Shards shards(s, 2);
  std::vector<float> loss(3, 77.0f), loss_rows(3);
  uint32_t ticket = 0;
  SplitPartials from = one_split(shards);
  from.view.o = nullptr;
  from.has_o = 0;
  const FinishParams params = {.rows = s.rows(Operand::kFloat32),
                               .from = from,
                               .temperature = {s.a.temperature, nullptr},
                               .reduction = FNCE_REDUCTION_NONE,
                               .gradient_type = FNCE_FLOAT32,
                               .loss = loss.data(),
                               .loss_rows = loss_rows.data(),
                               .ticket = &ticket};
  launch(finish_kernel(20), {3}, params, nullptr);
  CHECK(same_bits(loss, loss_rows));
  for (const float x : loss) CHECK((x > 0 && x < 50));
}

TEST_CASE("common finish_scores: statistics are right") {
  Setup s = make_setup(7, 96, 40, FNCE_LAMBDA_NONE, FNCE_SAMPLED, 68);
  s.p.scores = FNCE_SCORES_MIXED;
  s.inputs();
  Shards shards(s, 5);
  SplitArrays splits(shards, true);
  Outputs gpu(s.p);
  const std::vector<float> pos = cpu_prep(s).pos;
  const FinishScoresParams params = {
      splits.partials(shards, true), pos.data(), {s.a.temperature, nullptr}, gpu.buffers(1), 7};
  launch(finish_scores_kernel(), {2}, params, nullptr);
  FNCE_CHECK_VERDICT(support::compare_statistics(truth_of(s), support::ScoreSet::kPlain, statistics_of(gpu, 1)));
  const float wrong = -1.0f;
  FinishScoresParams wrong_params = params;
  wrong_params.temperature.pointer = &wrong;
  launch(finish_scores_kernel(), {2}, wrong_params, nullptr);
  for (const float x : gpu.floats[1][5]) CHECK(std::isnan(x));
}
