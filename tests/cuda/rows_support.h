// What the tests of kernels/rows share: a small problem with its inputs, the CPU backend through the C API as the
// reference, and the parameters of the row kernels. Kernels run where tests/hostcuda puts them: in host memory.
#pragma once
#include <flashnce/flashnce.hpp>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/layout.h"
#include "kernels/contract/launch.h"
#include "kernels/rows/kernels.h"
#include "math/half.h"
#include "support/check.h"
#include "support/compare.h"

namespace common_test {

using namespace fnce;
using namespace fnce::cuda;

using Bytes = std::vector<unsigned char>;
constexpr float kNan = __builtin_nanf("");

inline float element(const void* array, int64_t i, int32_t type) {
  if (type == FNCE_FLOAT32) return static_cast<const float*>(array)[i];
  const uint16_t bits = static_cast<const uint16_t*>(array)[i];
  return type == FNCE_FLOAT16 ? half_to_float(bits) : bfloat_to_float(bits);
}

inline Bytes encode(const std::vector<float>& values, int32_t type) {
  Bytes out(values.size() * (type == FNCE_FLOAT32 ? 4 : 2) + 1);
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == FNCE_FLOAT32) {
      std::memcpy(out.data() + 4 * i, &values[i], 4);
    } else {
      const uint16_t bits = type == FNCE_FLOAT16 ? float_to_half(values[i]) : float_to_bfloat(values[i]);
      std::memcpy(out.data() + 2 * i, &bits, 2);
    }
  }
  return out;
}

// A problem with inputs. Arrays may be changed before inputs() is called.
struct Setup {
  explicit Setup(int64_t n, int64_t k, int64_t d, uint64_t seed = 1) : random(seed) {
    FNCE_REQUIRE_OK(fnce_problem_init(&p, sizeof p, FNCE_PRESET_MOCO));
    FNCE_REQUIRE_OK(fnce_args_init(&a, sizeof a));
    p.n = n;
    p.k = p.k_global = k;
    p.d = d;
    a.seed = 0x123456789ABCDEFu + seed;
    a.offset = 8;
    x_q = normal(n * d, 1.0f);
    x_k = normal(n * d, 1.0f);
    // Keys near their queries, as after training: losses of every size.
    for (size_t i = 0; i < x_k.size(); ++i) x_k[i] = 0.4f * x_k[i] + x_q[i];
    queue = normal(k * d, 1.0f / std::sqrt(static_cast<float>(d)));
  }

  std::vector<float> normal(int64_t count, float scale) {
    std::normal_distribution<float> distribution(0.0f, scale);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = distribution(random);
    return values;
  }

  void set_mixing(int32_t granularity, int32_t source) {
    p.lambda_pos = p.lambda_neg = granularity;
    p.columns = granularity == FNCE_LAMBDA_NONE ? FNCE_COLUMNS_QUEUE : FNCE_COLUMNS_MIXED;
    if (granularity == FNCE_LAMBDA_NONE) source = FNCE_SAMPLED;
    p.lambda_pos_source = p.lambda_neg_source = source;
    a.shift_neg = 0.25f;
    lambda_pos =
        source == FNCE_GIVEN ? normal(flashnce::lambda_count(granularity, p.n, p.d), 1.0f) : std::vector<float>();
    lambda_neg =
        source == FNCE_GIVEN ? normal(flashnce::lambda_count(granularity, p.k, p.d), 1.0f) : std::vector<float>();
  }

  // The arrays in their types, and pointers to them in `a`.
  void inputs() {
    q_bytes = encode(x_q, p.feature_type);
    k_bytes = encode(x_k, p.feature_type);
    queue_bytes = encode(queue, p.queue_type);
    a.x_q = q_bytes.data();
    a.x_k = k_bytes.data();
    a.queue = p.k > 0 ? queue_bytes.data() : nullptr;
    a.lambda_pos = lambda_pos.empty() ? nullptr : lambda_pos.data();
    a.lambda_neg = lambda_neg.empty() ? nullptr : lambda_neg.data();
    a.weight = weight.empty() ? nullptr : weight.data();
  }

  // The lambdas of a side as the call uses them.
  std::vector<float> lambdas(bool positives) const {
    const std::vector<float>& given = positives ? lambda_pos : lambda_neg;
    if (!given.empty()) return given;
    std::vector<float> out(static_cast<size_t>(positives ? flashnce::lambda_count(p.lambda_pos, p.n, p.d)
                                                         : flashnce::lambda_count(p.lambda_neg, p.k, p.d)));
    FNCE_REQUIRE_OK((positives ? fnce_sample_lambda_pos : fnce_sample_lambda_neg)(&p, &a, out.data(),
                                                                                  static_cast<int64_t>(out.size())));
    return out;
  }
  std::vector<int32_t> permutation() const {
    std::vector<int32_t> out(static_cast<size_t>(p.k));
    FNCE_REQUIRE_OK(fnce_permutation(&p, &a, out.data(), p.k));
    return out;
  }

  Draws draws() const { return {{a.seed, a.seed_pointer}, {a.offset, a.offset_pointer}, a.offset_increment}; }
  LambdaSource source(bool positives) const {
    if (positives)
      return {p.lambda_pos, a.lambda_pos, {a.alpha_pos, a.alpha_pos_pointer}, {a.shift_pos, a.shift_pos_pointer}};
    return {p.lambda_neg, a.lambda_neg, {a.alpha_neg, a.alpha_neg_pointer}, {a.shift_neg, a.shift_neg_pointer}};
  }

  // The row kernels' view of the problem. The scratch is garbage, as a workspace's.
  RowsIn rows(Operand operand) {
    RowsIn rows = {};
    rows.x_q = a.x_q;
    rows.x_k = a.x_k;
    rows.feature_type = p.feature_type;
    rows.queue_type = p.queue_type;
    rows.operand = operand;
    rows.normalize = p.normalize;
    rows.renormalize = p.renormalize_pos;
    rows.mixes = 1;
    rows.anchor_mixed = p.anchor == FNCE_ANCHOR_MIXED;
    rows.n = p.n;
    rows.d = p.d;
    rows.row_offset = p.row_offset;
    rows.epsilon = a.epsilon;
    rows.lambda = source(true);
    rows.draws = draws();
    if (p.d > kSharedFeatures) {
      scratch.assign(static_cast<size_t>(p.n * kRowArrays * p.d), kNan);
      rows.scratch = scratch.data();
    }
    return rows;
  }

  fnce_problem p;
  fnce_args a;
  std::mt19937_64 random;
  std::vector<float> x_q, x_k, queue, lambda_pos, lambda_neg, weight, scratch;
  Bytes q_bytes, k_bytes, queue_bytes;
};

// Memory aligned as workspaces and partials are, full of garbage.
struct Aligned {
  explicit Aligned(size_t size)
      : bytes((size + FNCE_ALIGNMENT - 1) / FNCE_ALIGNMENT * FNCE_ALIGNMENT),
        memory(std::aligned_alloc(FNCE_ALIGNMENT, bytes ? bytes : FNCE_ALIGNMENT), std::free) {
    std::memset(memory.get(), 0xAB, bytes);
  }
  void* get() const { return memory.get(); }
  size_t bytes;
  std::unique_ptr<void, void (*)(void*)> memory;
};

// A plan of the CPU backend with its workspace.
struct CpuPlan {
  explicit CpuPlan(const fnce_problem& problem) : layout() {
    FNCE_REQUIRE_OK(fnce_plan_create(&problem, &plan));
    size_t size = 0;
    FNCE_REQUIRE_OK(fnce_plan_workspace(plan, &size));
    workspace = Aligned(size);
    FNCE_REQUIRE_OK(fnce_partial_layout(plan, &layout, sizeof layout));
  }
  ~CpuPlan() { fnce_plan_destroy(plan); }
  CpuPlan(const CpuPlan&) = delete;
  CpuPlan& operator=(const CpuPlan&) = delete;

  fnce_plan* plan = nullptr;
  Aligned workspace = Aligned(0);
  fnce_layout layout;
};

struct Anchors {
  explicit Anchors(const fnce_problem& p)
      : anchor(static_cast<size_t>(p.n * p.d)), pos(static_cast<size_t>(p.n)), unmixed_pos(pos) {}
  fnce_anchors pointers() { return {anchor.data(), pos.data(), unmixed_pos.data(), {}}; }
  std::vector<float> anchor, pos, unmixed_pos;
};

inline Anchors cpu_prep(const Setup& s) {
  CpuPlan plan(s.p);
  Anchors out(s.p);
  const fnce_anchors pointers = out.pointers();
  FNCE_REQUIRE_OK(fnce_prep(plan.plan, &s.a, &pointers, plan.workspace.get(), plan.workspace.bytes, nullptr));
  return out;
}

// The setup as the oracle judges it, by the tolerance policy; of float32 products.
inline support::Case case_of(const Setup& s) {
  support::Case c;
  c.problem = s.p;
  c.numbers = s.a;
  c.arrays = {s.x_q, s.x_k, s.queue, s.weight, s.lambda_pos, s.lambda_neg, {}};
  return c;
}
inline support::Truth truth_of(const Setup& s) { return support::Truth(support::oracle_inputs(case_of(s))); }

template <class T>
bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0);
}

}  // namespace common_test
