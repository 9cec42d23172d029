// The symmetric loss of a batch of pairs, equation (17): against the oracle for every option, shape and type, finite
// differences, bits, and what is not finite.
#include <cmath>
#include <limits>
#include <vector>

#include "support/check.h"
#include "support/pairs.h"
#include "support/random_case.h"

namespace {

using namespace support;

const char* const kOnCpu = "the symmetric loss runs on the CPU";

void check_pairs(const PairsCase& c) {
  const fnce_problem& p = c.problem;
  INFO("n=" << p.n << " d=" << p.d << " ids=" << p.id_mask << " bias=" << p.column_bias << " normalize=" << p.normalize
            << " reduction=" << p.reduction << " types=" << p.feature_type << p.queue_type << p.gradient_type
            << " temperature=" << c.temperature << " upstream=" << c.upstream.size() << " weight=" << c.weight.size());
  FNCE_CHECK_VERDICT(compare_pairs(c, PairsTruth(c), run_pairs(c)));
}

}  // namespace

TEST_CASE("symmetric: every shape") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  uint64_t seed = 4000;
  for (const int64_t n : {1, 2, 3, 15, 16, 17, 47, 48, 49, 95, 96, 97, 191, 192, 193, 500})
    for (const int64_t d : {1, 7, 8, 31, 32, 33, 64}) {
      if (n > 200 && d > 33 && device().emulated()) continue;
      check_pairs(make_pairs(n, d, ++seed));
    }
}

TEST_CASE("symmetric: every option, type and reduction") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  for (int bits = 0; bits < 64; ++bits) {
    const auto bit = [bits](int position) { return (bits >> position & 1) != 0; };
    PairsCase c = make_pairs(60 + bits, 24, 1);
    c.problem.id_mask = bit(0);
    c.problem.column_bias = bit(1);
    c.problem.normalize = !bit(2);
    c.problem.reduction = bits % 3;
    c.problem.feature_type = kTypes[bits / 3 % 3];
    c.problem.queue_type = kTypes[bits % 3];
    c.problem.gradient_type = kTypes[bits / 2 % 3];
    c.temperature = bit(3) ? 0.05f : 0.5f;
    c.temperature_by_pointer = bit(4);
    const auto seed = 4200 + static_cast<uint64_t>(bits);
    fill_pairs(c, seed);
    Random random(seed);
    if (bit(4))
      for (int64_t i = 0; i < c.problem.n; ++i)
        c.weight.push_back(random.chance(0.2) ? 0.0f : static_cast<float>(random.uniform(-1, 2)));
    if (bit(5)) {
      c.upstream.clear();
      for (int64_t i = 0; i < c.problem.n; ++i)
        c.upstream.push_back(i % 7 == 0 ? 0.0f : static_cast<float>(random.normal() * std::pow(10.0, i % 5 - 2)));
    }
    check_pairs(c);
  }
}

TEST_CASE("symmetric: upstream gradients of any size, and outputs by themselves") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  for (const float upstream : {0.0f, -1.0f, 1e-30f, 1e25f}) {
    PairsCase c = make_pairs(70, 20, 4300);
    c.upstream = {upstream};
    check_pairs(c);
  }
  const PairsCase all = make_pairs(70, 20, 4301);
  const PairsOutputs expected = run_pairs(all);
  for (int wants = 0; wants < 8; ++wants) {
    PairsCase c = all;
    for (int i = 0; i < 3; ++i) c.want[i] = (wants >> i & 1) != 0;
    const PairsOutputs out = run_pairs(c);
    for (int side = 0; side < 2; ++side)
      if (c.want[side]) CHECK(same_bits(out.gradient[side], expected.gradient[side]));
    FNCE_CHECK_VERDICT(compare_pairs(c, PairsTruth(c), out));
  }
}

TEST_CASE("symmetric: the same bits every time and for any number of threads") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  for (const int32_t type : kTypes) {
    PairsCase c = make_pairs(700, 40, 4400);
    c.problem.queue_type = type;
    c.problem.id_mask = c.problem.column_bias = 1;
    fill_pairs(c, 4400);
    c.problem.threads = 1;
    const PairsOutputs expected = run_pairs(c);
    for (const int32_t threads : {1, 2, 3, 7, 16}) {
      c.problem.threads = threads;
      CHECK(same_bits(expected, run_pairs(c, static_cast<unsigned char>(threads))));
    }
  }
}

TEST_CASE("symmetric: changing the sides over changes nothing") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  PairsCase c = make_pairs(90, 16, 4500);
  c.problem.id_mask = c.problem.column_bias = 1;
  fill_pairs(c, 4500);
  PairsCase turned = c;
  std::swap(turned.x[0], turned.x[1]);
  std::swap(turned.ids[0], turned.ids[1]);
  std::swap(turned.bias[0], turned.bias[1]);
  PairsOutputs out = run_pairs(turned);
  std::swap(out.gradient[0], out.gradient[1]);
  std::swap(out.log_sum_exp[0], out.log_sum_exp[1]);
  FNCE_CHECK_VERDICT(compare_pairs(c, PairsTruth(c), out));
}

TEST_CASE("symmetric: scores that differ by thousands") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  PairsCase c = make_pairs(150, 12, 4600);
  c.problem.normalize = 0;
  for (std::vector<float>& x : c.x)
    for (size_t i = 0; i < x.size(); ++i) x[i] *= i / 12 % 9 == 0 ? 40.0f : 1.0f;
  c.temperature = 0.1f;
  check_pairs(c);
}

TEST_CASE("symmetric: finite differences of the loss") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  PairsCase c = make_pairs(6, 5, 4700);
  c.problem.reduction = FNCE_REDUCTION_SUM;
  c.problem.id_mask = c.problem.column_bias = 1;
  fill_pairs(c, 4700);
  const PairsTruth truth(c);
  const auto total = [&](PairsCase moved) {
    const PairsTruth t(moved);
    return 0.5 * (oracle::total_loss(t.from[0].inputs) + oracle::total_loss(t.from[1].inputs));
  };
  const PairsOutputs out = run_pairs(c);
  for (int side = 0; side < 2; ++side)
    for (size_t i = 0; i < c.x[side].size(); ++i) {
      PairsCase above = c, below = c;
      above.x[side][i] += 1e-2f;
      below.x[side][i] -= 1e-2f;
      const double step = double(above.x[side][i]) - double(below.x[side][i]);
      CHECK(std::abs((total(above) - total(below)) / step - double(out.gradient[side][i])) < 2e-3);
    }
  PairsCase above = c, below = c;
  above.temperature += 1e-3f;
  below.temperature -= 1e-3f;
  const double step = double(above.temperature) - double(below.temperature);
  CHECK(std::abs((total(above) - total(below)) / step - double(out.dtemperature[0])) <
        1e-3 * (1 + std::abs(double(out.dtemperature[0]))));
}

TEST_CASE("symmetric: what is not finite shows where it counts, and nowhere else") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (int side = 0; side < 2; ++side)
      for (int kind = 0; kind < 6; ++kind) {
        PairsCase c = make_pairs(50, 16, 4800);
        c.problem.reduction = FNCE_REDUCTION_NONE;
        c.problem.id_mask = c.problem.column_bias = 1;
        fill_pairs(c, 4800);
        c.weight.assign(50, 1.0f);
        c.upstream.assign(50, 1.0f);
        const auto row = static_cast<size_t>(11);
        switch (kind) {
          case 0: c.x[side][row * 16 + 3] = poison; break;
          case 1: c.weight[row] = poison; break;
          case 2: c.upstream[row] = poison; break;
          case 3: c.bias[side][row] = poison; break;
          case 4:  // padding that holds anything: as if it were not there
            c.x[0][row * 16 + 3] = c.x[1][row * 16 + 5] = poison;
            c.ids[0][row] = c.ids[1][row] = FNCE_NO_COLUMN;
            c.weight[row] = 0;
            break;
          default:  // a column for nobody, whose own loss is asked for
            c.x[side][row * 16 + 3] = poison;
            c.ids[0][row] = c.ids[1][row] = FNCE_NO_COLUMN;
        }
        INFO("kind " << kind << " side " << side << " " << poison);
        PairsOutputs out = run_pairs(c);
        // Log-sum-exps know nothing of weights, but the oracle's of such a row are none.
        for (std::vector<float>& sums : out.log_sum_exp)
          if (kind == 1) sums[row] = poison;
        FNCE_CHECK_VERDICT(compare_pairs(c, PairsTruth(c), out));
        if (kind == 4)
          for (size_t i = row * 16; i < (row + 1) * 16; ++i) CHECK(out.gradient[side][i] == 0.0f);
      }
}

TEST_CASE("symmetric: one pair, and pairs that are all of one id, have no loss") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  PairsCase c = make_pairs(40, 8, 4900);
  c.problem.id_mask = 1;
  fill_pairs(c, 4900);
  for (std::vector<int64_t>& ids : c.ids) ids.assign(40, 5);
  const PairsOutputs out = run_pairs(c);
  CHECK(out.loss[0] == 0.0f);
  CHECK(out.dtemperature[0] == 0.0f);
  for (const std::vector<float>& gradient : out.gradient)
    for (const float x : gradient) CHECK(x == 0.0f);
  CHECK(run_pairs(make_pairs(1, 8, 4901)).loss[0] == 0.0f);
}

TEST_CASE("symmetric: a pair that sends nothing gives no gradient, whatever it holds") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto all_zero = [](const std::vector<float>& x) {
    for (const float value : x)
      if (value != 0.0f) return false;
    return true;
  };
  for (const int64_t n : {1, 3, 96, 97}) {
    // Weights of 0 for all, and upstream gradients of 0: nothing is sent at all.
    for (const bool by_weight : {true, false}) {
      PairsCase c = make_pairs(n, 8, 4900);
      c.x[0][0] = nan;
      if (by_weight)
        c.weight.assign(static_cast<size_t>(n), 0.0f);
      else
        c.upstream.assign(static_cast<size_t>(n), 0.0f);
      const PairsOutputs out = run_pairs(c);
      INFO("n=" << n << " by weight: " << by_weight);
      CHECK((all_zero(out.gradient[0]) && all_zero(out.gradient[1]) && all_zero(out.dtemperature)));
    }
    // A pair of weight 0 whose id all others share is nobody's column.
    PairsCase c = make_pairs(n, 8, 4901);
    c.problem.id_mask = 1;
    for (std::vector<int64_t>& ids : c.ids) ids.assign(static_cast<size_t>(n), 5);
    c.weight.assign(static_cast<size_t>(n), 1.0f);
    c.weight[0] = 0.0f;
    c.x[0][0] = nan;
    const PairsOutputs out = run_pairs(c);
    INFO("n=" << n << ", one id");
    CHECK((all_zero(out.gradient[0]) && all_zero(out.gradient[1]) && all_zero(out.dtemperature)));
  }
  // Scores beyond every range, with one pair that sends nothing.
  for (uint64_t seed = 0; seed < 30; ++seed) {
    PairsCase c = make_pairs(6, 4, 4950 + seed);
    c.temperature = 3e-31f;
    c.weight.assign(6, 1.0f);
    c.weight[2] = 0.0f;
    const PairsOutputs out = run_pairs(c);
    if (!std::isfinite(out.loss[0])) continue;
    INFO("seed " << seed);
    for (const std::vector<float>& gradient : out.gradient)
      for (const float value : gradient) CHECK_FALSE(std::isnan(value));
  }
}

TEST_CASE("symmetric: the gradient of the temperature where all scores are near each other") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kOnCpu);
  for (const float spread : {0.1f, 0.03f, 0.01f}) {
    PairsCase c = make_pairs(256, 64, 5000);
    Random random(5000);
    std::vector<float> common(64);
    for (float& value : common) value = static_cast<float>(random.normal());
    for (std::vector<float>& x : c.x)
      for (size_t i = 0; i < x.size(); ++i) x[i] = common[i % 64] + spread * static_cast<float>(random.normal());
    c.temperature = 0.01f;
    const PairsOutputs out = run_pairs(c);
    const PairsTruth truth(c);
    FNCE_CHECK_VERDICT(compare_pairs(c, truth, out));
    // dt is a sum of differences of scores, tau^2 times about their variance: what they have in common must cancel.
    double expected = 0;
    for (const Truth& side : truth.from)
      for (const double row : side.exact.dtemperature_rows) expected += 0.5 * row;
    INFO("spread " << spread << ": " << out.dtemperature[0] << ", not " << expected);
    CHECK(std::fabs(static_cast<double>(out.dtemperature[0]) - expected) <= 0.02 * std::fabs(expected));
  }
}
