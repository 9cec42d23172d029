// One query and its key: normalisation and mixing forward, equations (1), (2), (4), and backward, equation (8).
#include "cpu/simd/convert.h"
#include "math/gradient.h"
#include "math/mixing.h"
#include "math/norm.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

constexpr int64_t kSumBlock = 8192;  // features summed before they are added to the rest: errors hardly grow with D

// Sum over c of f(c), four vectors at a time: as accurate as it is fast.
template <class F, class G>
HWY_INLINE float sum_over(int64_t d, F&& vector_term, G&& scalar_term) {
  float total = 0;
  for (int64_t c = 0; c < d;) {
    const int64_t end = d - c < kSumBlock ? d : c + kSumBlock;
    V sum[4] = {hn::Zero(df), hn::Zero(df), hn::Zero(df), hn::Zero(df)};
    for (; c + 4 * kLanes <= end; c += 4 * kLanes)
      FNCE_UNROLL for (int u = 0; u < 4; ++u) sum[u] = vector_term(c + u * kLanes, sum[u]);
    for (; c + kLanes <= end; c += kLanes) sum[0] = vector_term(c, sum[0]);
    total += hn::GetLane(hn::SumOfLanes(df, hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]))));
    for (; c < end; ++c) total += scalar_term(c);
  }
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

void scale(const float* x, float factor, int64_t d, float* out) {
  scale_row(x, FNCE_FLOAT32, factor, d, out, FNCE_FLOAT32);
}

HWY_INLINE float norm_of(const float* x, int64_t d) { return norm(x, FNCE_FLOAT32, d); }

// Features in float32: in place, or converted into scratch.
const float* in_float(const void* x, const RowInput& input, float* scratch) {
  if (input.type == FNCE_FLOAT32) return static_cast<const float*>(x);
  scale_row(x, input.type, 1.0f, input.d, scratch, FNCE_FLOAT32);
  return scratch;
}

// Equation (1): the row and its norm; without normalisation the row as it is.
float normalized(const float* x, const RowInput& input, float* out) {
  float length = 1.0f, factor = 1.0f;
  if (input.normalize) {
    length = norm_of(x, input.d);
    factor = checked_inverse_norm(length, input.epsilon);
  }
  scale(x, factor, input.d, out);
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
void write_gradient(const RowInput& input, float length, const float* y, float up, float* g, void* out, int32_t type) {
  if (input.normalize) normalize_backward(length, input.epsilon, y, input.d, g);
  if (out) scale_row(g, FNCE_FLOAT32, up, input.d, out, type);
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

float norm(const void* x, int32_t type, int64_t d) {
  const float squares = with_type(type, [&](auto tag) {
    constexpr int32_t kType = decltype(tag)::kType;
    return sum_over(
        d,
        [&](int64_t c, V sum) {
          const V value = load<kType>(df, x, c);
          return hn::MulAdd(value, value, sum);
        },
        [&](int64_t c) {
          const float value = load_one<kType>(x, c);
          return value * value;
        });
  });
  return __builtin_sqrtf(squares);
}

void scale_row(const void* x, int32_t type, float factor, int64_t d, void* out, int32_t out_type) {
  with_type(type, [&](auto from) {
    with_type(out_type, [&](auto to) {
      constexpr int32_t kFrom = decltype(from)::kType, kTo = decltype(to)::kType;
      int64_t c = 0;
      for (; c + kLanes <= d; c += kLanes) store<kTo>(df, hn::Mul(load<kFrom>(df, x, c), constant(factor)), out, c);
      for (; c < d; ++c) store_one<kTo>(load_one<kFrom>(x, c) * factor, out, c);
    });
  });
}

float rounded_dot(const float* x, bool round_x, const float* y, int32_t type, int64_t d) {
  return with_type(type, [&](auto tag) {
    constexpr int32_t kType = decltype(tag)::kType;
    return sum_over(
        d,
        [&](int64_t c, V sum) {
          const V a = hn::LoadU(df, x + c), b = hn::LoadU(df, y + c);
          return hn::MulAdd(round_x ? rounded<kType>(df, a) : a, rounded<kType>(df, b), sum);
        },
        [&](int64_t c) { return (round_x ? rounded_one<kType>(x[c]) : x[c]) * rounded_one<kType>(y[c]); });
  });
}

void prepare_row(const RowInput& input, PreparedRow& s) {
  const int64_t d = input.d;
  const float *x_q = in_float(input.x_q, input, s.raw_q), *x_k = in_float(input.x_k, input, s.raw_k);
  s.norm_q = normalized(x_q, input, s.q);
  s.norm_k = normalized(x_k, input, s.k);
  s.norm_q_mixed = s.norm_k_mixed = 1.0f;
  // A norm that overflows counts as not finite.
  float check = finite_check(x_q, d) + finite_check(x_k, d) + 0.0f * s.norm_q + 0.0f * s.norm_k;
  s.unmixed_pos = dot(s.q, s.k, d);
  s.pos = s.unmixed_pos;
  if (input.lambda) {
    check += finite_check(input.lambda, input.per_element ? d : 1);
    mix_pair(input, s.q, s.k, s.q_mixed, s.k_mixed);
    if (input.renormalize) {
      s.norm_q_mixed = norm_of(s.q_mixed, d);
      s.norm_k_mixed = norm_of(s.k_mixed, d);
      check += 0.0f * s.norm_q_mixed + 0.0f * s.norm_k_mixed;
      scale(s.q_mixed, checked_inverse_norm(s.norm_q_mixed, input.epsilon), d, s.q_mixed);
      scale(s.k_mixed, checked_inverse_norm(s.norm_k_mixed, input.epsilon), d, s.k_mixed);
    }
    s.pos = dot(s.q_mixed, s.k_mixed, d);
  } else {
    scale(s.q, 1.0f, d, s.q_mixed);
    scale(s.k, 1.0f, d, s.k_mixed);
  }
  s.finite = check == 0;
}

float normalize_row(const RowInput& input, const void* x, float* out) {
  return normalized(in_float(x, input, out), input, out);
}

void feature_gradient(const RowInput& input, float norm, const float* y, float* g, void* out, int32_t out_type) {
  write_gradient(input, norm, y, 1.0f, g, out, out_type);
}

void row_gradient(const RowInput& input, const PreparedRow& s, RowGradient& g) {
  const int64_t d = input.d;
  float *g_q = g.scratch, *g_k = g.scratch + d;
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
  write_gradient(input, s.norm_q, s.q, g.up, g_q, g.dq, g.type);
  if (g.dk) write_gradient(input, s.norm_k, s.k, g.up, g_k, g.dk, g.type);
  if (g.wants_norm) g.dq_norm = scaled_norm(g_q, g.up, d);
}

}  // namespace fnce::cpu::FNCE_ISA
