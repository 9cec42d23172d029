// One query and its key: normalisation and mixing forward, equations (1), (2), (4), and backward, equation (8).
#include "cpu/isa/simd.h"
#include "math/gradient.h"
#include "math/mixing.h"
#include "math/norm.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// Sum over c of f(c), four vectors at a time: as accurate as it is fast.
template <class F, class G>
HWY_INLINE float sum_over(int64_t d, F&& vector_term, G&& scalar_term) {
  V sum[4] = {hn::Zero(df), hn::Zero(df), hn::Zero(df), hn::Zero(df)};
  int64_t c = 0;
  for (; c + 4 * kLanes <= d; c += 4 * kLanes)
    FNCE_UNROLL for (int u = 0; u < 4; ++u) sum[u] = vector_term(c + u * kLanes, sum[u]);
  for (; c + kLanes <= d; c += kLanes) sum[0] = vector_term(c, sum[0]);
  float total = hn::GetLane(hn::SumOfLanes(df, hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]))));
  for (; c < d; ++c) total += scalar_term(c);
  return total;
}

HWY_INLINE float dot(const float* x, const float* y, int64_t d) {
  return sum_over(
      d, [&](int64_t c, V sum) { return hn::MulAdd(hn::LoadU(df, x + c), hn::LoadU(df, y + c), sum); },
      [&](int64_t c) { return x[c] * y[c]; });
}

// 0 if all are finite, else NaN.
HWY_INLINE float finite_check(const float* x, int64_t d) {
  return sum_over(
      d, [&](int64_t c, V sum) { return hn::MulAdd(hn::LoadU(df, x + c), hn::Zero(df), sum); },
      [&](int64_t c) { return x[c] * 0.0f; });
}

// Equation (1): the row and its norm; without normalisation the row as it is.
float normalized(const float* x, const RowInput& input, float* out) {
  float length = 1.0f, factor = 1.0f;
  if (input.normalize) {
    length = norm(x, input.d);
    factor = checked_inverse_norm(length, input.epsilon);
  }
  scale_row(x, factor, input.d, out);
  return length;
}

// The lambda of feature c.
HWY_INLINE float lambda_at(const RowInput& input, int64_t c) { return input.lambda[input.per_element ? c : 0]; }

// (mix(lambda, x, y), mix(lambda, y, x)); in place is fine.
void mix_pair(const RowInput& input, const float* x, const float* y, float* mixed_x, float* mixed_y) {
  for (int64_t c = 0; c < input.d; ++c) {
    const float lambda = lambda_at(input, c), a = x[c], b = y[c];
    mixed_x[c] = mix(lambda, a, b);
    mixed_y[c] = mix(lambda, b, a);
  }
}

// Backward of y = v / max(|v|, epsilon), in place of g.
void normalize_backward(float length, float epsilon, const float* y, int64_t d, float* g) {
  const NormBackward<float> rule = norm_backward(length, epsilon, dot(g, y, d));
  for (int64_t c = 0; c < d; ++c) g[c] = apply(rule, g[c], y[c]);
}

// The last step back, to the raw features, times `up`.
void write_gradient(const RowInput& input, float length, const float* y, float up, float* g, float* out) {
  if (input.normalize) normalize_backward(length, input.epsilon, y, input.d, g);
  if (out) scale_row(g, up, input.d, out);
}

// |up * g| in double: below epsilon, gradients reach 1e24, and their squares overflow float32.
float scaled_norm(const float* g, float up, int64_t d) {
  double sum = 0;
  for (int64_t c = 0; c < d; ++c) {
    const double x = static_cast<double>(g[c]) * static_cast<double>(up);
    sum += x * x;
  }
  return static_cast<float>(__builtin_sqrt(sum));
}

}  // namespace

float norm(const float* x, int64_t d) { return __builtin_sqrtf(dot(x, x, d)); }

void scale_row(const float* x, float factor, int64_t d, float* out) {
  for (int64_t c = 0; c < d; ++c) out[c] = x[c] * factor;
}

void prepare_row(const RowInput& input, RowState& s) {
  const int64_t d = input.d;
  s.norm_q = normalized(input.x_q, input, s.q);
  s.norm_k = normalized(input.x_k, input, s.k);
  s.norm_q_mixed = s.norm_k_mixed = 1.0f;
  // A norm that overflows counts as not finite.
  float check = finite_check(input.x_q, d) + finite_check(input.x_k, d) + 0.0f * s.norm_q + 0.0f * s.norm_k;
  s.unmixed_pos = dot(s.q, s.k, d);
  s.pos = s.unmixed_pos;
  if (input.lambda) {
    check += finite_check(input.lambda, input.per_element ? d : 1);
    mix_pair(input, s.q, s.k, s.q_mixed, s.k_mixed);
    if (input.renormalize) {
      s.norm_q_mixed = norm(s.q_mixed, d);
      s.norm_k_mixed = norm(s.k_mixed, d);
      check += 0.0f * s.norm_q_mixed + 0.0f * s.norm_k_mixed;
      scale_row(s.q_mixed, checked_inverse_norm(s.norm_q_mixed, input.epsilon), d, s.q_mixed);
      scale_row(s.k_mixed, checked_inverse_norm(s.norm_k_mixed, input.epsilon), d, s.k_mixed);
    }
    s.pos = dot(s.q_mixed, s.k_mixed, d);
  } else {
    scale_row(s.q, 1.0f, d, s.q_mixed);
    scale_row(s.k, 1.0f, d, s.k_mixed);
  }
  s.finite = check == 0;
}

void row_gradient(const RowInput& input, const RowState& s, RowGradient& g) {
  const int64_t d = input.d;
  float *g_q = g.scratch, *g_k = g.scratch + round_up(d, kDimBlock);
  const float* anchor = g.anchor_mixed ? s.q_mixed : s.q;
  g.anchor_o = dot(anchor, g.o, d) * g.inverse_l;
  const float scale = g.w / g.temperature;
  for (int64_t c = 0; c < d; ++c) {
    const float o_mean = g.anchor_mixed ? g.o[c] * g.inverse_l : 0.0f;
    g_q[c] = gradient_query_mixed(scale, s.k_mixed[c], o_mean);
    g_k[c] = gradient_key_mixed(scale, s.q_mixed[c]);
  }
  if (input.lambda) {
    if (input.renormalize) {
      normalize_backward(s.norm_q_mixed, input.epsilon, s.q_mixed, d, g_q);
      normalize_backward(s.norm_k_mixed, input.epsilon, s.k_mixed, d, g_k);
    }
    mix_pair(input, g_q, g_k, g_q, g_k);
  }
  if (!g.anchor_mixed)
    for (int64_t c = 0; c < d; ++c) g_q[c] += gradient_anchor(scale, g.o[c] * g.inverse_l);
  write_gradient(input, s.norm_q, s.q, g.up, g_q, g.dq);
  if (g.dk) write_gradient(input, s.norm_k, s.k, g.up, g_k, g.dk);
  if (g.wants_norm) g.dq_norm = scaled_norm(g_q, g.up, d);
}

}  // namespace fnce::cpu::FNCE_ISA
