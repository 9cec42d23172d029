// Equation (8) against finite differences of equation (7), in double, for both anchors, and the entropy's closed form.
#include "math/gradient.h"

#include "math/lse.h"
#include "math/mixing.h"
#include "support/catch.h"

#include <array>
#include <cmath>

using namespace fnce;

namespace {

constexpr int kD = 4, kK = 5;
using Row = std::array<double, kD>;

double dot(const Row& x, const Row& y) {
  double sum = 0;
  for (int c = 0; c < kD; ++c) sum += x[c] * y[c];
  return sum;
}

Row pseudo_row(int seed) {
  Row row{};
  for (int c = 0; c < kD; ++c) row[c] = std::sin(1.7 * seed + 2.3 * c);
  return row;
}

struct Forward {
  double pos = 0, lse = 0, temperature = 0;
  Row q_mixed{}, k_mixed{}, o_mean{}, anchor{};
  RowLoss<double> row{};
};

Forward forward(const Row& q, const Row& k, double lambda, double temperature, bool anchor_mixed) {
  Forward f;
  f.temperature = temperature;
  for (int c = 0; c < kD; ++c) {
    f.q_mixed[c] = mix(lambda, q[c], k[c]);
    f.k_mixed[c] = mix(lambda, k[c], q[c]);
  }
  f.anchor = anchor_mixed ? f.q_mixed : q;
  f.pos = dot(f.q_mixed, f.k_mixed) / temperature;
  LogSum<double> sum;
  for (int j = 0; j < kK; ++j) sum = push(sum, dot(f.anchor, pseudo_row(10 + j)) / temperature);
  f.lse = log_sum_exp(sum);
  for (int j = 0; j < kK; ++j) {
    const Row z = pseudo_row(10 + j);
    const double p = std::exp(dot(f.anchor, z) / temperature - f.lse);
    for (int c = 0; c < kD; ++c) f.o_mean[c] += p * z[c];
  }
  f.row = row_loss(f.lse, f.pos);
  return f;
}

}  // namespace

TEST_CASE("gradient: of both features, for both anchors, against finite differences") {
  const Row q = pseudo_row(1), k = pseudo_row(2);
  for (bool anchor_mixed : {true, false})
    for (double lambda : {1.0, 1.6, 0.3})
      for (double temperature : {0.2, 1.0}) {
        const Forward f = forward(q, k, lambda, temperature, anchor_mixed);
        const double scale = f.row.w / temperature;
        for (int c = 0; c < kD; ++c) {
          const double g_q = gradient_query_mixed(scale, f.k_mixed[c], anchor_mixed ? f.o_mean[c] : 0.0);
          const double g_k = gradient_key_mixed(scale, f.q_mixed[c]);
          const double direct = anchor_mixed ? 0.0 : gradient_anchor(scale, f.o_mean[c]);
          const auto slope = [&](const Row& q_up, const Row& k_up, const Row& q_down, const Row& k_down) {
            return (forward(q_up, k_up, lambda, temperature, anchor_mixed).row.loss -
                    forward(q_down, k_down, lambda, temperature, anchor_mixed).row.loss) /
                   2e-5;
          };
          Row q_up = q, q_down = q, k_up = k, k_down = k;
          q_up[c] += 1e-5, q_down[c] -= 1e-5, k_up[c] += 1e-5, k_down[c] -= 1e-5;
          INFO("anchor_mixed " << anchor_mixed << ", lambda " << lambda << ", temperature " << temperature);
          CHECK(std::fabs(mix(lambda, g_q, g_k) + direct - slope(q_up, k, q_down, k)) < 2e-8);
          CHECK(std::fabs(mix(lambda, g_k, g_q) - slope(q, k_up, q, k_down)) < 2e-8);
        }
      }
}

TEST_CASE("gradient: of the temperature, against finite differences") {
  const Row q = pseudo_row(1), k = pseudo_row(2);
  for (bool anchor_mixed : {true, false})
    for (double temperature : {0.2, 1.0}) {
      const Forward f = forward(q, k, 1.4, temperature, anchor_mixed);
      const double neg_mean = dot(f.anchor, f.o_mean) / temperature;
      const double slope = (forward(q, k, 1.4, temperature + 1e-5, anchor_mixed).row.loss -
                            forward(q, k, 1.4, temperature - 1e-5, anchor_mixed).row.loss) /
                           2e-5;
      CHECK(std::fabs(gradient_temperature(f.row.w, f.pos, neg_mean, temperature) - slope) < 1e-6);
    }
}

TEST_CASE("gradient: the entropy is that of the softmax over all columns") {
  const Row q = pseudo_row(1), k = pseudo_row(2);
  for (double temperature : {0.05, 0.2, 1.0, 20.0}) {
    const Forward f = forward(q, k, 1.4, temperature, true);
    const double total = f.row.loss + f.pos;
    double entropy = -std::exp(f.pos - total) * (f.pos - total);
    for (int j = 0; j < kK; ++j) {
      const double s = dot(f.anchor, pseudo_row(10 + j)) / temperature;
      entropy -= std::exp(s - total) * (s - total);
    }
    const double neg_mean = dot(f.anchor, f.o_mean) / temperature;
    CHECK(std::fabs(row_entropy(f.row.loss, f.row.w, f.pos, neg_mean) - entropy) < 1e-12);
  }
}

TEST_CASE("gradient: without columns everything is 0") {
  const RowLoss<float> row = row_loss(log_sum_exp(LogSum<float>{}), 3.0f);
  CHECK(gradient_query_mixed(row.w / 0.2f, 0.7f, 0.0f) == 0.0f);
  CHECK(gradient_key_mixed(row.w / 0.2f, 0.7f) == 0.0f);
  CHECK(gradient_temperature(row.w, 3.0f, 0.0f, 0.2f) == 0.0f);
  CHECK(row_entropy(row.loss, row.w, 3.0f, 0.0f) == 0.0f);
}
