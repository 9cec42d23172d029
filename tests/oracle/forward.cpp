// Equations (1)-(6) of the oracle: normalisation, mixing of the positives, the mixed queue, the columns.
#include "oracle/forward.h"

#include <utility>

#include "oracle/operands.h"

namespace oracle {
namespace {

template <class T>
std::vector<T> rounded_to(Element element, std::vector<T> values) {
  if (element == Element::kFloat32) return values;
  for (T& value : values) value = T(rounded(element, double(value)));
  return values;
}

}  // namespace

double lambda_at(Granularity granularity, const std::vector<double>& lambda, int64_t row, int64_t dim, int64_t d) {
  switch (granularity) {
    case Granularity::kNone: return 1.0;
    case Granularity::kCall: return lambda[0];
    case Granularity::kRow: return lambda[row];
    case Granularity::kDimension: return lambda[dim];
    case Granularity::kElement: return lambda[row * d + dim];
  }
  return NAN;
}

template <class T>
void embed(const Inputs& in, Result<T>& out) {
  const int64_t n = in.n, d = in.d;
  const T epsilon = T(in.epsilon);
  out.q.assign(in.x_q.begin(), in.x_q.end());
  out.k.assign(in.x_k.begin(), in.x_k.end());
  out.q_norm.assign(n, 1);
  out.k_norm.assign(n, 1);
  for (int64_t i = 0; in.normalize && i < n; ++i) {
    out.q_norm[i] = normalize_row(&out.q[i * d], d, epsilon);
    out.k_norm[i] = normalize_row(&out.k[i * d], d, epsilon);
  }
  out.q_mixed = out.q;
  out.k_mixed = out.k;
  if (in.granularity_pos != Granularity::kNone) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t c = 0; c < d; ++c) {
        const T lambda = T(lambda_at(in.granularity_pos, in.lambda_pos, i, c, d));
        const T q = out.q[i * d + c], k = out.k[i * d + c];
        out.q_mixed[i * d + c] = lambda * q + (1 - lambda) * k;
        out.k_mixed[i * d + c] = lambda * k + (1 - lambda) * q;
      }
    }
  }
  out.q_mixed_norm.assign(n, 1);
  out.k_mixed_norm.assign(n, 1);
  for (int64_t i = 0; in.renormalize_pos && i < n; ++i) {
    out.q_mixed_norm[i] = normalize_row(&out.q_mixed[i * d], d, epsilon);
    out.k_mixed_norm[i] = normalize_row(&out.k_mixed[i * d], d, epsilon);
  }
  out.anchor = in.anchor == Anchor::kMixed ? out.q_mixed : out.q;
  out.scoring = rounded_rows(anchor_rounding(in), out.anchor, d);
  out.batch.assign(in.x_c.begin(), in.x_c.end());
  out.batch_norm.assign(in.c, 1);
  for (int64_t j = 0; in.normalize && j < in.c; ++j) out.batch_norm[j] = normalize_row(&out.batch[j * d], d, epsilon);
}

namespace {

// The batch columns as they are multiplied.
template <class T>
std::vector<T> batch_columns(const Inputs& in) {
  std::vector<T> rows(in.x_c.begin(), in.x_c.end());
  for (int64_t j = 0; in.normalize && j < in.c; ++j) normalize_row(&rows[j * in.d], in.d, T(in.epsilon));
  return rounded_rows(batch_rounding(in), std::move(rows), in.d);
}

}  // namespace

template <class T>
std::vector<T> raw_columns(const Inputs& in, std::vector<T> queue) {
  const std::vector<T> batch = batch_columns<T>(in);
  queue.insert(queue.end(), batch.begin(), batch.end());
  return queue;
}

template <class T>
std::vector<T> negative_columns(const Inputs& in) {
  const int64_t k = in.k, d = in.d;
  const std::vector<T> multiplied = multiplied_queue<T>(in), queue(in.queue.begin(), in.queue.end());
  if (in.columns == Columns::kQueue || !in.mixes_negatives()) return raw_columns(in, multiplied);
  const Rounding rounding = mixed_row_rounding(in);
  std::vector<T> columns(k * d);
  for (int64_t j = 0; j < k; ++j) {
    const int64_t partner = in.permutation[j];
    const std::vector<T>& rows = in.mixes_as_row(j) ? queue : multiplied;
    for (int64_t c = 0; c < d; ++c) {
      const T lambda = T(lambda_at(in.granularity_neg, in.lambda_neg, j, c, d));
      columns[j * d + c] = lambda * rows[j * d + c] + (1 - lambda) * rows[partner * d + c];
    }
    if (in.renormalize_neg) normalize_row(&columns[j * d], d, T(in.epsilon));
    for (int64_t c = j * d; rounding.any() && in.mixes_as_row(j) && c < (j + 1) * d; ++c)
      columns[c] = T(rounded(rounding.element, double(columns[c]), rounding.exponent));
  }
  if (in.columns == Columns::kUnion) columns.insert(columns.end(), multiplied.begin(), multiplied.end());
  return raw_columns(in, std::move(columns));
}

std::vector<double> unrounded_columns(const Inputs& in) {
  Inputs plain = in;
  plain.products = Products::kFloat32;
  return negative_columns<double>(plain);
}

template <class T>
std::vector<T> rank_positives(const Inputs& in, const std::vector<T>& q, const std::vector<T>& k) {
  const std::vector<T> key = rounded_rows(rank_key_rounding(in), rounded_to(in.queue_type, k), in.d);
  return row_products(rounded_rows(anchor_rounding(in), q, in.d), key, in.n, in.d);
}

template <class T>
std::vector<T> row_products(const std::vector<T>& a, const std::vector<T>& b, int64_t n, int64_t d) {
  std::vector<T> out(n, T(0));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < d; ++c) out[i] += a[i * d + c] * b[i * d + c];
  return out;
}

template <class T>
std::vector<T> inner_products(const std::vector<T>& rows, const std::vector<T>& columns, int64_t n, int64_t d) {
  const int64_t count = d > 0 ? static_cast<int64_t>(columns.size()) / d : 0;
  // The transposed columns let the compiler vectorise over columns; each sum still runs over c in order.
  std::vector<T> transposed(columns.size());
  for (int64_t j = 0; j < count; ++j)
    for (int64_t c = 0; c < d; ++c) transposed[c * count + j] = columns[j * d + c];
  std::vector<T> product(n * count, T(0));
  for (int64_t i = 0; i < n; ++i) {
    T* row = product.data() + i * count;
    for (int64_t c = 0; c < d; ++c) {
      const T x = rows[i * d + c];
      const T* column = transposed.data() + c * count;
      for (int64_t j = 0; j < count; ++j) row[j] += x * column[j];
    }
  }
  return product;
}

template void embed(const Inputs&, Result<double>&);
template void embed(const Inputs&, Result<float>&);
template std::vector<double> negative_columns(const Inputs&);
template std::vector<float> negative_columns(const Inputs&);
template std::vector<double> raw_columns(const Inputs&, std::vector<double>);
template std::vector<float> raw_columns(const Inputs&, std::vector<float>);
template std::vector<double> rank_positives(const Inputs&, const std::vector<double>&, const std::vector<double>&);
template std::vector<float> rank_positives(const Inputs&, const std::vector<float>&, const std::vector<float>&);
template std::vector<double> row_products(const std::vector<double>&, const std::vector<double>&, int64_t, int64_t);
template std::vector<float> row_products(const std::vector<float>&, const std::vector<float>&, int64_t, int64_t);
template std::vector<double> inner_products(const std::vector<double>&, const std::vector<double>&, int64_t, int64_t);
template std::vector<float> inner_products(const std::vector<float>&, const std::vector<float>&, int64_t, int64_t);

}  // namespace oracle
