// Which columns count, equation (14), as the page states it.
#include "oracle/columns.h"

#include <limits>

#include "oracle/forward.h"
#include "oracle/operands.h"

namespace oracle {
namespace {

// The rows that a column is made of: a batch column, or a row of the queue and, where it is mixed, its partner.
struct Origin {
  bool batch = false;
  int64_t row = 0, partner = -1;
};

Origin of_loss(const Inputs& in, int64_t j) {
  if (j >= in.queue_columns()) return {true, j - in.queue_columns()};
  if (j >= in.k) return {false, j - in.k};
  return {false, j, in.mixes_negatives() ? in.permutation[j] : -1};
}

Origin of_raw(const Inputs& in, int64_t j) { return j < in.k ? Origin{false, j} : Origin{true, j - in.k}; }

bool id_counts(int64_t column, int64_t query) {
  if (column == kNoColumn) return false;
  return query == kNoColumn || column != query;
}

// What ids and bias say.
bool may_count(const Inputs& in, const Origin& o, int64_t i) {
  const std::vector<int64_t>& ids = o.batch ? in.batch_ids : in.column_ids;
  const std::vector<double>& bias = o.batch ? in.batch_bias : in.column_bias;
  if (in.has_bias() && bias[o.row] == -std::numeric_limits<double>::infinity()) return false;
  if (!in.has_ids()) return true;
  return id_counts(ids[o.row], in.query_ids[i]) && (o.partner < 0 || id_counts(ids[o.partner], in.query_ids[i]));
}

bool lambda_is_finite(const Inputs& in, int64_t row) {
  switch (in.granularity_neg) {
    case Granularity::kNone: return true;
    case Granularity::kRow: return std::isfinite(in.lambda_neg[row]);
    case Granularity::kElement: return finite_range(in.lambda_neg, row * in.d, in.d);
    case Granularity::kCall:
    case Granularity::kDimension: return all_finite(in.lambda_neg);
  }
  return true;
}

template <class T, class OriginOf>
std::vector<T> biases(const Inputs& in, int64_t count, OriginOf origin_of) {
  std::vector<T> out(count, T(0));
  for (int64_t j = 0; in.has_bias() && j < count; ++j) {
    const Origin o = origin_of(in, j);
    out[j] = T((o.batch ? in.batch_bias : in.column_bias)[o.row]);
  }
  return out;
}

// The scores of a set, and the positives that they are compared with.
struct Compared {
  std::vector<double> score, pos;
  std::vector<char>* counts;
  Origin (*origin)(const Inputs&, int64_t);
};

// Calls `judge` with the difference of each score to its limit and whether ids and bias let the column count.
template <class Judge>
void for_each_column(const Inputs& in, const Compared& set, Judge judge) {
  const int64_t columns = static_cast<int64_t>(set.counts->size()) / in.n;
  for (int64_t i = 0; i < in.n; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      char& counts = (*set.counts)[i * columns + j];
      const bool may = may_count(in, set.origin(in, j), i);
      const double above = in.has_margin ? set.score[i * columns + j] - set.pos[i] - in.margin : -1;
      judge(may, above, counts);
    }
}

// The three sets; without a margin they have no scores.
std::vector<Compared> compared_sets(const Inputs& in, Counting& counting) {
  const int64_t raw_count = in.k + in.c;
  counting.mixed.assign(in.n * in.column_count(), 0);
  counting.unmixed.assign(in.n * raw_count, 0);
  counting.plain.assign(in.n * raw_count, 0);
  std::vector<Compared> sets{
      {{}, {}, &counting.mixed, of_loss}, {{}, {}, &counting.unmixed, of_raw}, {{}, {}, &counting.plain, of_raw}};
  if (!in.has_margin) return sets;
  Result<double> r;
  embed(in, r);
  const std::vector<double> plain = rounded_rows(anchor_rounding(in), r.q, in.d);
  sets[0].score = inner_products(r.scoring, negative_columns<double>(in), in.n, in.d);
  sets[1].score = inner_products(r.scoring, raw_columns(in, multiplied_queue<double>(in)), in.n, in.d);
  sets[2].score = inner_products(plain, raw_columns(in, queue_of_scores<double>(in)), in.n, in.d);
  sets[0].pos = rank_positives(in, r.q_mixed, r.k_mixed);
  sets[1].pos = sets[2].pos = rank_positives(in, r.q, r.k);
  return sets;
}

}  // namespace

bool column_is_finite(const Inputs& in, int64_t j) {
  const Origin o = of_loss(in, j);
  const std::vector<double>& bias = o.batch ? in.batch_bias : in.column_bias;
  if (in.has_bias() && !std::isfinite(bias[o.row])) return false;
  if (o.batch) return finite_range(in.x_c, o.row * in.d, in.d);
  if (!finite_range(in.queue, o.row * in.d, in.d)) return false;
  return o.partner < 0 || (finite_range(in.queue, o.partner * in.d, in.d) && lambda_is_finite(in, o.row));
}

template <class T>
std::vector<T> bias_of_loss(const Inputs& in) {
  return biases<T>(in, in.column_count(), of_loss);
}

template <class T>
std::vector<T> bias_of_raw(const Inputs& in) {
  return biases<T>(in, in.k + in.c, of_raw);
}

Counting counting_of(const Inputs& in) {
  Counting counting;
  for (const Compared& set : compared_sets(in, counting))
    for_each_column(in, set, [](bool may, double above, char& counts) { counts = may && !(above > 0); });
  return counting;
}

std::vector<double> above_positives(const Inputs& in) {
  Inputs zero = in;
  zero.has_margin = true;
  zero.margin = 0;
  Counting counting;
  std::vector<double> out;
  for (const Compared& set : compared_sets(zero, counting))
    for_each_column(zero, set, [&](bool may, double above, char&) {
      if (may) out.push_back(above);
    });
  return out;
}

template std::vector<double> bias_of_loss(const Inputs&);
template std::vector<float> bias_of_loss(const Inputs&);
template std::vector<double> bias_of_raw(const Inputs&);
template std::vector<float> bias_of_raw(const Inputs&);

}  // namespace oracle
