// Equations (3), (7) and (9) of one row in float64, and how far float32 and 16-bit weights may be from them.
#include <algorithm>
#include <cmath>

#include "hostcuda/planted/problem.h"

namespace main_pass {
namespace {

// Scores of one row against a segment, and the sums of magnitudes that their rounding is a part of.
struct RawScores {
  std::vector<double> score, magnitude;
};

RawScores raw_scores(const Inputs& in, int64_t row, const Rows& segment) {
  RawScores raw;
  for (int64_t j = 0; j < segment.count; ++j) {
    double sum = 0, magnitude = 0;
    for (int64_t f = 0; f < in.c.d; ++f) {
      const double product =
          in.anchors[static_cast<size_t>(row * in.c.d + f)] * segment.values[static_cast<size_t>(j * in.c.d + f)];
      sum += product;
      magnitude += std::fabs(product);
    }
    raw.score.push_back(sum);
    raw.magnitude.push_back(magnitude);
  }
  return raw;
}

// A column of the softmax: a score, and the rows it is made of.
struct Column {
  double score, magnitude;
  int64_t row, partner;  // of its segment
  double lambda;         // column = lambda * row + (1 - lambda) * partner
  const Rows* segment;
};

// The position after `position` in the order of a group {p, p+1, p+8, p+9}, of those below k.
int64_t partner_position(int64_t position, int64_t k) {
  const int64_t first = position & ~int64_t{9};
  std::vector<int64_t> members;
  for (const int64_t step : {0, 1, 8, 9})
    if (first + step < k) members.push_back(first + step);
  const auto at = std::find(members.begin(), members.end(), position) - members.begin();
  return members[static_cast<size_t>(at + 1) % members.size()];
}

void add_raw(const Rows& segment, const RawScores& raw, std::vector<Column>& columns) {
  for (int64_t j = 0; j < segment.count; ++j)
    columns.push_back({raw.score[static_cast<size_t>(j)], raw.magnitude[static_cast<size_t>(j)], j, j, 1.0, &segment});
}

void add_mixed(const Inputs& in, const RawScores& raw, std::vector<Column>& columns) {
  for (int64_t position = 0; position < in.c.k; ++position) {
    const int64_t row = in.order[static_cast<size_t>(position)];
    const int64_t partner = in.order[static_cast<size_t>(partner_position(position, in.c.k))];
    const double lambda = static_cast<double>(in.lambda_at(position));
    const auto j = static_cast<size_t>(row), l = static_cast<size_t>(partner);
    columns.push_back({lambda * raw.score[j] + (1 - lambda) * raw.score[l],
                       std::fabs(lambda) * raw.magnitude[j] + std::fabs(1 - lambda) * raw.magnitude[l], row, partner,
                       lambda, &in.segments[0]});
  }
}

// float32 sums of D products in any order, the two roundings of a mixed score, and the products of low planes left out.
double score_error(const std::vector<Column>& columns) {
  double largest = 0;
  for (const Column& column : columns) largest = std::max(largest, column.magnitude);
  return 0x1p-19 * largest;
}

double log_sum_of(const std::vector<Column>& columns, double temperature) {
  double most = -INFINITY, sum = 0;
  for (const Column& column : columns) most = std::max(most, column.score / temperature);
  for (const Column& column : columns) sum += std::exp(column.score / temperature - most);
  return most + std::log(sum);
}

// A weight's rounding: relative, and of those too small for float16.
struct WeightError {
  double relative, absolute;
};
WeightError weight_error(const Inputs& in) {
  if (in.c.operand == Operand::kBfloat) return {0x1p-8, 0};
  double bound = 2;
  for (const float extent : in.extent) bound = std::max(bound, static_cast<double>(extent) + 2);
  const double bias = std::min(6.0, std::floor(15.9 - 8 - std::log2(bound)));
  if (in.c.operand == Operand::kHalfSplit) return {0x1p-20, 0x1p-37 * bound};
  return {0x1p-11, std::exp2(-25 - bias)};
}

void expect_mean(const Inputs& in, const std::vector<Column>& columns, ExpectedRow& out) {
  const auto d = static_cast<size_t>(in.c.d);
  const double temperature = static_cast<double>(in.c.temperature);
  const WeightError error = weight_error(in);
  out.mean.assign(d, 0.0);
  out.mean_error.assign(d, 1e-30);
  for (const Column& column : columns) {
    const double p = std::exp(column.score / temperature - out.log_sum);
    const double* row = &column.segment->values[static_cast<size_t>(column.row) * d];
    const double* partner = &column.segment->values[static_cast<size_t>(column.partner) * d];
    for (size_t f = 0; f < d; ++f) {
      const double own = column.lambda * row[f], other = (1 - column.lambda) * partner[f];
      out.mean[f] += p * (own + other);
      out.mean_error[f] += p * (std::fabs(own) + std::fabs(other)) * (error.relative + 3 * out.log_sum_error) +
                           error.absolute * (std::fabs(row[f]) + std::fabs(partner[f]));
    }
  }
}

void expect_statistics(const Inputs& in, int set, std::vector<Column> columns, int64_t row, ExpectedStatistics& out) {
  out.count = static_cast<int64_t>(columns.size());
  out.min = INFINITY;
  out.max = -INFINITY;
  out.score_error = score_error(columns);
  const double upper = static_cast<double>(in.upper[set][static_cast<size_t>(row)]);
  const double lower = static_cast<double>(in.lower[set][static_cast<size_t>(row)]);
  for (const Column& column : columns) {
    const double s = column.score, e = out.score_error;
    out.mean += s / static_cast<double>(out.count);
    out.min = std::min(out.min, s);
    out.max = std::max(out.max, s);
    out.n_greater[0] += s > upper + e;
    out.n_greater[1] += s > upper - e;
    out.n_greater_equal[0] += s >= lower + e;
    out.n_greater_equal[1] += s >= lower - e;
  }
  for (const Column& column : columns) out.m2 += (column.score - out.mean) * (column.score - out.mean);
  out.log_sum = log_sum_of(columns, static_cast<double>(in.c.temperature));
}

}  // namespace

ExpectedRow expected_row(const Inputs& in, int64_t row) {
  ExpectedRow out;
  std::vector<Column> loss, unmixed;
  const RawScores raw = raw_scores(in, row, in.segments[0]);
  if (in.c.columns == Columns::kScores) {
    add_mixed(in, raw, loss);
    if (in.c.is_union) add_raw(in.segments[0], raw, loss);
    add_raw(in.segments[0], raw, unmixed);
  } else if (in.c.columns == Columns::kPremixed) {
    add_raw(in.segments[0], raw, loss);
    add_raw(in.segments[1], raw_scores(in, row, in.segments[1]), in.c.is_union ? loss : unmixed);
    if (in.c.is_union) unmixed.assign(loss.begin() + in.c.k, loss.end());
  } else {
    add_raw(in.segments[0], raw, loss);
    unmixed = loss;
  }
  const double temperature = static_cast<double>(in.c.temperature);
  if (!loss.empty()) {
    double largest = 0;
    for (const Column& column : loss) largest = std::max(largest, std::fabs(column.score));
    out.log_sum = log_sum_of(loss, temperature);
    out.log_sum_error = (score_error(loss) + 0x1p-22 * largest) / temperature + 1e-6;
  }
  expect_mean(in, loss, out);
  expect_statistics(in, 0, std::move(loss), row, out.statistics[0]);
  expect_statistics(in, 1, std::move(unmixed), row, out.statistics[1]);
  return out;
}

}  // namespace main_pass
