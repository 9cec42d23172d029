// Every combination of element types through fnce_loss: against the oracle on the rounded inputs, and bit for bit
// against what the header promises: features and queue are converted exactly, gradients are rounded once.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/products.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

// The ways through the backend: raw rows, mixed scores, mixed rows, both columns.
struct Way {
  const char* name;
  int32_t preset;
  void (*change)(fnce_problem&);
};

const std::vector<Way> kWays{
    {"moco", FNCE_PRESET_MOCO, [](fnce_problem&) {}},
    {"ft", FNCE_PRESET_FT, [](fnce_problem&) {}},
    {"ft per row", FNCE_PRESET_FT, [](fnce_problem& p) { p.lambda_pos = p.lambda_neg = FNCE_LAMBDA_ROW; }},
    {"ft-elementwise", FNCE_PRESET_FT_ELEMENTWISE, [](fnce_problem&) {}},
    {"union", FNCE_PRESET_FT, [](fnce_problem& p) { p.columns = FNCE_COLUMNS_UNION; }},
    {"union of mixed rows", FNCE_PRESET_FT_ELEMENTWISE, [](fnce_problem& p) { p.columns = FNCE_COLUMNS_UNION; }},
    {"renormalised", FNCE_PRESET_FT, [](fnce_problem& p) { p.renormalize_pos = p.renormalize_neg = 1; }},
    {"given permutation", FNCE_PRESET_FT, [](fnce_problem& p) { p.permutation_source = FNCE_GIVEN; }},
    {"anchor q", FNCE_PRESET_FT, [](fnce_problem& p) { p.anchor = FNCE_ANCHOR_QUERY; }},
};

Case typed_case(const Way& way, int64_t n, int64_t k, int64_t d, const int32_t (&types)[3], uint64_t seed) {
  Case c = make_case(way.preset, n, k, d);
  way.change(c.problem);
  set_types(c, types[0], types[1], types[2]);
  c.problem.scores = kBoth;
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  c.label = std::string(way.name) + ": " + describe(c);
  return c;
}

template <class Body>
void for_every_type(Body&& body) {
  for (const int32_t feature : kTypes)
    for (const int32_t queue : kTypes)
      for (const int32_t gradient : kTypes) body({feature, queue, gradient});
}

using Types = int32_t[3];

bool has_float32_products(const Case& c) { return products_of(c) == oracle::Products::kFloat32; }

}  // namespace

TEST_CASE("types: all combinations of features, queue and gradients, every way of mixing") {
  uint64_t seed = 4000;
  for (const Way& way : kWays)
    for_every_type([&](const Types& types) {
      const int64_t shapes[][3] = {{5, 37, 13}, {33, 256, 64}, {3, 130, 100}};
      for (const auto& shape : shapes) {
        const int64_t k = device().emulated() ? std::min<int64_t>(shape[1], 70) : shape[1];
        const Case c = typed_case(way, shape[0], k, shape[2], types, ++seed);
        INFO(c.label);
        const Outputs actual = run_loss(c);
        const Truth truth(oracle_inputs(c));
        FNCE_CHECK_VERDICT(compare_all(c, truth, actual));
        if (k >= 70 && shape[1] == 256) CHECK(gradient_has_signal(truth));
      }
    });
}

TEST_CASE("types: larger shapes, several row blocks and chunks of the queue") {
  for (const Way& way : {kWays[0], kWays[1], kWays[3]})
    for (const int32_t queue : kTypes) {
      for (const auto& [n, k, d] :
           {std::tuple<int64_t, int64_t, int64_t>{130, 4096, 64}, {1100, 300, 16}, {2, 9001, 40}}) {
        const uint64_t seed = 5000 + static_cast<uint64_t>(n);
        const Case c = typed_case(way, n, affordable(n, k, d), d, {queue, queue, queue}, seed);
        INFO(c.label);
        FNCE_CHECK_VERDICT(check_case(c));
      }
    }
}

TEST_CASE("types: sizes around every padding of the 16-bit kernels") {
  uint64_t seed = 6000;
  for (const int32_t queue : {FNCE_FLOAT16, FNCE_BFLOAT16})
    for (const int64_t d : {1, 2, 15, 16, 17, 31, 32, 33, 63, 65})
      for (const int64_t k : {1, 2, 3, 15, 16, 31, 33, 95, 96, 97})
        for (const Way& way : {kWays[0], kWays[4]}) {
          const int64_t n = 1 + static_cast<int64_t>(++seed % 40);
          const Case c = typed_case(way, n, k, d, {FNCE_FLOAT32, queue, FNCE_FLOAT32}, seed);
          INFO(c.label);
          FNCE_CHECK_VERDICT(check_case(c));
        }
}

TEST_CASE("types: features are converted exactly: the same values as float32 give the same bits") {
  for (const Way& way : kWays)
    for (const int32_t feature : {FNCE_FLOAT16, FNCE_BFLOAT16})
      for (const int32_t queue : kTypes) {
        const Case typed = typed_case(way, 21, 150, 37, {feature, queue, FNCE_FLOAT32}, 71);
        Case plain = typed;
        plain.problem.feature_type = FNCE_FLOAT32;
        INFO(typed.label);
        CHECK(same_bits(run_loss(typed), run_loss(plain)));
      }
}

TEST_CASE("types: the queue is converted exactly where products are float32: loss and gradients have the same bits") {
  // A GPU multiplies rows of so many features in float32.
  const bool gpu = device().kind() == FNCE_CUDA;
  const int64_t n = gpu ? 5 : 21, k = gpu ? 75 : 150, d = gpu ? 531 : 37;
  int compared = 0;
  for (const Way& way : kWays)
    for (const int32_t queue : {FNCE_FLOAT16, FNCE_BFLOAT16}) {
      const Case typed = typed_case(way, n, k, d, {FNCE_FLOAT32, queue, FNCE_FLOAT32}, 72);
      if (!has_float32_products(typed)) continue;
      Case plain = typed;
      plain.problem.queue_type = FNCE_FLOAT32;
      REQUIRE(has_float32_products(plain));
      INFO(typed.label);
      const Outputs a = run_loss(typed), b = run_loss(plain);
      CHECK(same_bits(a.loss, b.loss));
      CHECK(same_bits(a.dq, b.dq));
      CHECK(same_bits(a.dk, b.dk));
      CHECK(same_bits(a.dtemperature_rows, b.dtemperature_rows));
      CHECK(same_bits(a.mixed.pos, b.mixed.pos));
      CHECK(same_bits(a.mixed.neg_max, b.mixed.neg_max));
      CHECK(same_bits(a.unmixed.neg_variance, b.unmixed.neg_variance));
      ++compared;
    }
  CHECK(compared >= static_cast<int>(kWays.size()));
}

TEST_CASE("types: gradients are the float32 ones rounded once, everything else does not change") {
  for (const Way& way : kWays)
    for (const int32_t queue : kTypes)
      for (const int32_t gradient : {FNCE_FLOAT16, FNCE_BFLOAT16}) {
        Case exact = typed_case(way, 21, 150, 37, {FNCE_FLOAT32, queue, FNCE_FLOAT32}, 73);
        // Rows whose gradients overflow float16, are denormal in it, and vanish.
        exact.problem.reduction = FNCE_REDUCTION_NONE;
        exact.arrays.weight.assign(21, 1.0f);
        exact.arrays.weight[1] = 1e6f;
        exact.arrays.weight[2] = 1e-5f;
        exact.arrays.weight[3] = 1e-9f;
        exact.arrays.weight[4] = 0.0f;
        exact.arrays.weight[5] = NAN;
        Case typed = exact;
        typed.problem.gradient_type = gradient;
        INFO(describe(typed));
        Outputs expected = run_loss(exact);
        const Outputs actual = run_loss(typed);
        for (auto* rows : {&expected.dq, &expected.dk}) *rows = oracle::rounded(element_of(gradient), *rows);
        for (const auto& [a, e] : {std::pair{&actual.dq, &expected.dq}, {&actual.dk, &expected.dk}}) {
          REQUIRE(a->size() == e->size());
          size_t wrong = 0;
          for (size_t i = 0; i < a->size(); ++i)
            wrong += std::isnan((*e)[i]) ? !std::isnan((*a)[i]) : std::memcmp(&(*a)[i], &(*e)[i], sizeof(float)) != 0;
          CHECK(wrong == 0);
        }
        if (gradient == FNCE_FLOAT16) CHECK(std::isinf(actual.dq[37]));
        CHECK(same_bits(actual.loss, expected.loss));
        CHECK(same_bits(actual.dtemperature_rows, expected.dtemperature_rows));
        CHECK(same_bits(actual.mixed, expected.mixed));
        CHECK(same_bits(actual.unmixed, expected.unmixed));
      }
}

TEST_CASE("types: each output alone, in every gradient type") {
  for (const int32_t gradient : kTypes) {
    const Case all = typed_case(kWays[1], 18, 70, 24, {gradient, gradient, gradient}, 74);
    const Outputs expected = run_loss(all);
    for (int only = 0; only < 5; ++only) {
      Case c = all;
      c.want = {only == 0, only == 1, only == 2, only == 3, only == 4};
      const Outputs out = run_loss(c);
      INFO(describe(c));
      if (only == 0) CHECK(same_bits(out.loss, expected.loss));
      if (only == 1) CHECK(same_bits(out.dq, expected.dq));
      if (only == 2) CHECK(same_bits(out.dk, expected.dk));
      if (only == 3) CHECK(same_bits(out.dtemperature_rows, expected.dtemperature_rows));
      if (only == 4) CHECK(same_bits(out.dtemperature, expected.dtemperature));
    }
  }
}
