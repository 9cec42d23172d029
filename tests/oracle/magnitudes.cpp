// Absolute values all the way.
#include "oracle/magnitudes.h"

#include <algorithm>
#include <cmath>

#include "oracle/forward.h"

namespace oracle {
namespace {

Rows row_norms(const Rows& matrix, int64_t d) {
  Rows norms(matrix.size() / d);
  for (size_t i = 0; i < norms.size(); ++i) norms[i] = norm_of(&matrix[i * d], d);
  return norms;
}

Rows absolute(const Rows& values) {
  Rows out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), [](double x) { return std::abs(x); });
  return out;
}

Rows negative_magnitudes(const Inputs& in) {
  const int64_t d = in.d;
  if (in.columns == Columns::kQueue || !in.mixes_negatives()) return absolute(in.queue);
  Rows out(in.k * d), mixed(d);
  for (int64_t j = 0; j < in.k; ++j) {
    for (int64_t c = 0; c < d; ++c) {
      const double lambda = lambda_at(in.granularity_neg, in.lambda_neg, j, c, d);
      const double own = lambda * in.queue[j * d + c], other = (1 - lambda) * in.queue[in.permutation[j] * d + c];
      out[j * d + c] = std::abs(own) + std::abs(other);
      mixed[c] = own + other;
    }
    const double divisor = in.renormalize_neg ? std::max(norm_of(mixed.data(), d), in.epsilon) : 1.0;
    for (int64_t c = 0; c < d; ++c) out[j * d + c] /= divisor;
  }
  if (in.columns == Columns::kUnion) {
    const Rows queue = absolute(in.queue);
    out.insert(out.end(), queue.begin(), queue.end());
  }
  return out;
}

// g of y = v / max(|v|, epsilon) in magnitudes.
void normalize_backward(const double* y, double norm, double epsilon, int64_t d, double* g) {
  double inner = 0;
  for (int64_t c = 0; c < d; ++c) inner += g[c] * y[c];
  for (int64_t c = 0; c < d; ++c) g[c] = norm >= epsilon ? (g[c] + inner * y[c]) / norm : g[c] / epsilon;
}

}  // namespace

Magnitudes magnitudes_of(const Inputs& in, const Result<double>& r) {
  const int64_t n = in.n, d = in.d;
  Magnitudes m;
  m.q = absolute(r.q);
  m.k = absolute(r.k);
  m.q_mixed = m.q;
  m.k_mixed = m.k;
  for (int64_t i = 0; i < n; ++i) {
    const double q_divisor = in.renormalize_pos ? std::max(r.q_mixed_norm[i], in.epsilon) : 1.0;
    const double k_divisor = in.renormalize_pos ? std::max(r.k_mixed_norm[i], in.epsilon) : 1.0;
    for (int64_t c = 0; c < d; ++c) {
      const double lambda = lambda_at(in.granularity_pos, in.lambda_pos, i, c, d);
      const double own = std::abs(lambda), other = std::abs(1 - lambda);
      const double q = m.q[i * d + c], k = m.k[i * d + c];
      m.q_mixed[i * d + c] = (own * q + other * k) / q_divisor;
      m.k_mixed[i * d + c] = (own * k + other * q) / k_divisor;
    }
  }
  m.anchor = in.anchor == Anchor::kMixed ? m.q_mixed : m.q;
  m.batch = absolute(r.batch);
  m.negatives = negative_magnitudes(in);
  m.negatives.insert(m.negatives.end(), m.batch.begin(), m.batch.end());
  m.q_norm = row_norms(m.q, d);
  m.k_norm = row_norms(m.k, d);
  m.q_mixed_norm = row_norms(m.q_mixed, d);
  m.k_mixed_norm = row_norms(m.k_mixed, d);
  m.anchor_norm = row_norms(m.anchor, d);
  m.negative_norm = row_norms(m.negatives, d);
  m.raw_norm = row_norms(in.queue, d);
  const Rows batch_norm = row_norms(m.batch, d);
  m.raw_norm.insert(m.raw_norm.end(), batch_norm.begin(), batch_norm.end());
  return m;
}

void propagate(const Inputs& in, const Result<double>& r, const Magnitudes& m, int64_t i, RowBounds b, Rows& dq,
               Rows& dk) {
  const int64_t d = in.d;
  const double scale = std::abs(row_scale(in, i));
  Rows g_q(d, 0), g_k(d, 0);
  for (int64_t c = 0; c < d; ++c) (in.anchor == Anchor::kMixed ? b.q_mixed : g_q)[c] += b.anchor[c];
  if (in.renormalize_pos) {
    normalize_backward(&m.q_mixed[i * d], r.q_mixed_norm[i], in.epsilon, d, b.q_mixed.data());
    normalize_backward(&m.k_mixed[i * d], r.k_mixed_norm[i], in.epsilon, d, b.k_mixed.data());
  }
  for (int64_t c = 0; c < d; ++c) {
    const double lambda = lambda_at(in.granularity_pos, in.lambda_pos, i, c, d);
    const double own = std::abs(lambda), other = std::abs(1 - lambda);
    g_q[c] += own * b.q_mixed[c] + other * b.k_mixed[c];
    g_k[c] += other * b.q_mixed[c] + own * b.k_mixed[c];
  }
  if (in.normalize) {
    normalize_backward(&m.q[i * d], r.q_norm[i], in.epsilon, d, g_q.data());
    normalize_backward(&m.k[i * d], r.k_norm[i], in.epsilon, d, g_k.data());
  }
  for (int64_t c = 0; c < d; ++c) {
    dq[i * d + c] += scale * g_q[c];
    dk[i * d + c] += scale * g_k[c];
  }
}

void propagate_batch(const Inputs& in, const Result<double>& r, Rows& dx_c) {
  for (int64_t j = 0; in.normalize && j < in.c; ++j) {
    // Nothing reaches a column that no row has, whatever it holds.
    if (std::all_of(&dx_c[j * in.d], &dx_c[j * in.d] + in.d, [](double g) { return g == 0; })) continue;
    Rows y(r.batch.begin() + j * in.d, r.batch.begin() + (j + 1) * in.d);
    for (double& x : y) x = std::abs(x);
    normalize_backward(y.data(), r.batch_norm[j], in.epsilon, in.d, &dx_c[j * in.d]);
  }
}

}  // namespace oracle
