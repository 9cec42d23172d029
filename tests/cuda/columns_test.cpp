// Tables, premixed rows, the check of permutations, queue pushes and scaling: kernels over the columns and over plain
// arrays.
#include <algorithm>
#include <numeric>

#include "cuda/rows_support.h"
#include "math/permutation.h"

namespace {

using namespace common_test;

struct TableArrays {
  TableArrays(int64_t k, int32_t blocks)
      : order(static_cast<size_t>(k), -1),
        lambda(static_cast<size_t>(k), kNan),
        extent(static_cast<size_t>(blocks), 77.0f) {}
  std::vector<int32_t> order;
  std::vector<float> lambda, extent;
};

template <class Params>
void set_tables(const Setup& s, int32_t blocks, TableArrays& arrays, Params& params) {
  params.tables = {arrays.order.data(), arrays.lambda.data(), arrays.extent.data(), blocks};
  params.lambda_neg = s.source(false);
  params.k = s.p.k;
  params.k_global = s.p.k_global;
  params.column_offset = s.p.column_offset;
  params.perm_block = s.p.perm_block;
  params.table_blocks = blocks;
}

// By the pack kernel, or by prep: they share the tables.
TableArrays run_tables(Setup& s, int32_t blocks, bool by_prep) {
  TableArrays arrays(s.p.k, blocks);
  std::vector<float> anchor(static_cast<size_t>(s.p.n * s.p.d), 0.5f);
  const Grid grid = {static_cast<unsigned>(s.p.n + blocks)};
  if (by_prep) {
    PrepParams params = {};
    params.rows = s.rows(Operand::kFloat32);
    params.anchor = anchor.data();
    set_tables(s, blocks, arrays, params);
    launch(prep_kernel(s.p.d), grid, params, nullptr);
  } else {
    PackParams params = {};
    params.anchor = anchor.data();
    params.n = s.p.n;
    params.d = s.p.d;
    params.draws = s.draws();
    set_tables(s, blocks, arrays, params);
    launch(pack_kernel(s.p.d), grid, params, nullptr);
  }
  return arrays;
}

float extent_of(float lambda) { return std::abs(lambda) + std::abs(1.0f - lambda); }

void check_tables(const Setup& s, const TableArrays& t) {
  const std::vector<int32_t> pi = s.permutation();
  const std::vector<float> lambda = s.lambdas(false);
  const bool per_row = s.p.lambda_neg == FNCE_LAMBDA_ROW;
  std::vector<bool> seen(static_cast<size_t>(s.p.k));
  for (int64_t i = 0; i < s.p.k; ++i) {
    const PermutationBlock block = permutation_block(s.p.column_offset + i, s.p.perm_block, s.p.k_global);
    const int64_t first = block.first - s.p.column_offset;
    const int64_t partner = first + cycle_next(static_cast<uint32_t>(i - first), block.size);
    const auto row = static_cast<size_t>(t.order[static_cast<size_t>(i)]);
    REQUIRE(row < seen.size());
    REQUIRE_FALSE(seen[row]);
    seen[row] = true;
    REQUIRE(pi[row] == t.order[static_cast<size_t>(partner)]);
    if (per_row) REQUIRE(t.lambda[static_cast<size_t>(i)] == lambda[row]);
  }
  if (!per_row) CHECK(t.lambda[0] == lambda[0]);
  float extent = 0;
  for (const float x : lambda) extent = std::max(extent, extent_of(x));
  CHECK(*std::max_element(t.extent.begin(), t.extent.end()) == extent);
}

// Row j of the mixed queue in float64.
std::vector<double> mixed_row(const Setup& s, const std::vector<float>& lambda, int64_t j, int64_t partner) {
  std::vector<double> row(static_cast<size_t>(s.p.d));
  double squares = 0;
  for (int64_t c = 0; c < s.p.d; ++c) {
    int64_t at = 0;
    if (s.p.lambda_neg == FNCE_LAMBDA_ROW) at = j;
    if (s.p.lambda_neg == FNCE_LAMBDA_DIMENSION) at = c;
    if (s.p.lambda_neg == FNCE_LAMBDA_ELEMENT) at = j * s.p.d + c;
    const auto l = static_cast<double>(lambda[static_cast<size_t>(at)]);
    const auto z = static_cast<double>(element(s.a.queue, j * s.p.d + c, s.p.queue_type));
    const auto y = static_cast<double>(element(s.a.queue, partner * s.p.d + c, s.p.queue_type));
    row[static_cast<size_t>(c)] = l * z + (1 - l) * y;
    squares += row[static_cast<size_t>(c)] * row[static_cast<size_t>(c)];
  }
  if (s.p.renormalize_neg)
    for (double& x : row) x /= std::max(std::sqrt(squares), static_cast<double>(s.a.epsilon));
  return row;
}

PremixParams premix_params(const Setup& s, const TableArrays& tables, Bytes& out, int64_t stride, int32_t type) {
  PremixParams params = {};
  params.queue = s.a.queue;
  params.queue_type = s.p.queue_type;
  params.k = s.p.k;
  params.d = s.p.d;
  params.column_offset = s.p.column_offset;
  params.lambda = s.source(false);
  params.draws = s.draws();
  params.order = tables.order.data();
  params.k_global = s.p.k_global;
  params.perm_block = s.p.perm_block;
  params.renormalize = s.p.renormalize_neg;
  params.epsilon = s.a.epsilon;
  params.out = out.data();
  params.out_type = type;
  params.out_stride = stride;
  return params;
}

// Rows of both queues are equal, but for the rounding of norms: no terms of a norm cancel, so an element's size is its
// condition.
void check_pushed(const Bytes& gpu, const Bytes& cpu, int64_t k, int64_t d, int32_t type, bool normalized) {
  if (!normalized) {
    CHECK(gpu == cpu);
    return;
  }
  std::vector<float> actual, other;
  std::vector<double> truth, condition;
  for (int64_t i = 0; i < k * d; ++i) {
    actual.push_back(element(gpu.data(), i, type));
    other.push_back(element(cpu.data(), i, type));
    truth.push_back(static_cast<double>(other.back()));
    condition.push_back(std::isfinite(truth.back()) ? std::abs(truth.back()) : 0.0);
  }
  FNCE_CHECK_VERDICT(support::compare_pair(
      {"pushed row", k, d, &truth, &other, &condition, nullptr, support::element_of(type)}, actual, other));
}

double unit_of(int32_t type) { return type == FNCE_FLOAT32 ? 0x1p-22 : type == FNCE_FLOAT16 ? 0x1p-10 : 0x1p-7; }

// Every row is the mixed row of its partner, rounded, with zeros behind it.
void check_premixed(const Setup& s, const std::vector<int32_t>& pi, const Bytes& out, int64_t stride, int32_t type) {
  const std::vector<float> lambda = s.lambdas(false);
  for (int64_t j = 0; j < s.p.k; ++j) {
    const std::vector<double> expected = mixed_row(s, lambda, j, pi[static_cast<size_t>(j)]);
    for (int64_t c = 0; c < stride; ++c) {
      const float z = element(out.data(), j * stride + c, type);
      const double exact = c < s.p.d ? expected[static_cast<size_t>(c)] : 0.0;
      // The terms of a mix may cancel: up to 10, in float32.
      if (!(std::abs(static_cast<double>(z) - exact) <= unit_of(type) * std::abs(exact) + 10 * 0x1p-22) ||
          (c >= s.p.d && z != 0.0f))
        FAIL("row " << j << ", feature " << c << ": " << z << " for " << exact);
    }
  }
}

}  // namespace

TEST_CASE("common tables: order and lambda are those of the contract") {
  struct Shape {
    int64_t k, k_global, offset, block;
  };
  // The last two are the ends of queues that are sharded.
  const Shape shapes[] = {{1, 1, 0, 0},        {5, 5, 0, 0},      {16, 16, 0, 0},         {4099, 4099, 0, 0},
                          {3000, 3000, 0, 64}, {40, 104, 64, 16}, {500, 1540, 1040, 1040}};
  for (const Shape& shape : shapes)
    for (const int32_t granularity : {FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW})
      for (const int32_t source : {FNCE_SAMPLED, FNCE_GIVEN})
        for (const bool by_prep : {false, true}) {
          Setup s(3, shape.k, 10, 21);
          s.set_mixing(granularity, source);
          s.p.k_global = shape.k_global;
          s.p.column_offset = shape.offset;
          s.p.perm_block = shape.block;
          s.inputs();
          INFO("K " << shape.k << ", block " << s.p.perm_block << ", granularity " << granularity);
          for (const int32_t blocks : {table_blocks_for(shape.k), 3}) check_tables(s, run_tables(s, blocks, by_prep));
        }
}

TEST_CASE("common tables: a lambda that is not finite, and wrong numbers, are seen in the extent") {
  const float wrong_alpha = -1.0f;
  const uint64_t wrong_offset = 2;
  for (int which = 0; which < 4; ++which) {
    Setup s(1, 3000, 4, 22);
    s.set_mixing(which == 3 ? FNCE_LAMBDA_CALL : FNCE_LAMBDA_ROW, which == 0 || which == 1 ? FNCE_GIVEN : FNCE_SAMPLED);
    if (which == 0) s.lambda_neg[1234] = kNan;
    if (which == 1) s.a.offset_pointer = &wrong_offset;  // of the permutation
    if (which >= 2) s.a.alpha_neg_pointer = &wrong_alpha;
    s.inputs();
    const TableArrays t = run_tables(s, 3, false);
    const auto bad = std::count_if(t.extent.begin(), t.extent.end(), [](float x) { return x != x; });
    CHECK(bad == (which == 0 ? 1 : 3));
    CHECK(std::count_if(t.order.begin(), t.order.end(), [](int32_t row) { return row < 0 || row >= 3000; }) == 0);
  }
}

TEST_CASE("common premix: rows are mixed with their partners, in every granularity and type") {
  int index = 0;
  for (const int32_t granularity : {FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW, FNCE_LAMBDA_DIMENSION, FNCE_LAMBDA_ELEMENT})
    for (const int32_t source : {FNCE_SAMPLED, FNCE_GIVEN})
      for (const int64_t d : {1, 13, 64, 516})
        for (const bool renormalize : {false, true}) {
          Setup s(1, 83, d, 31);
          s.set_mixing(granularity, source);
          s.p.renormalize_neg = renormalize;
          s.p.queue_type = 1 + index % 3;
          const int32_t out_type = 1 + index / 3 % 3;
          ++index;
          s.p.perm_block = d == 64 ? 32 : 0;
          s.inputs();
          INFO("granularity " << granularity << ", source " << source << ", D " << d << ", types " << s.p.queue_type
                              << " -> " << out_type << ", renormalised " << renormalize);
          const TableArrays tables = run_tables(s, 1, false);
          const int64_t stride = d % 8 == 0 ? d : (d + 7) / 8 * 8;
          Aligned memory(static_cast<size_t>(s.p.k * stride * 4));
          Bytes out(memory.bytes);
          launch(premix_kernel(), {5}, premix_params(s, tables, out, stride, out_type), nullptr);
          check_premixed(s, s.permutation(), out, stride, out_type);

          // The same with a permutation that is given.
          std::vector<int32_t> given(static_cast<size_t>(s.p.k));
          std::iota(given.begin(), given.end(), 0);
          std::shuffle(given.begin(), given.end(), s.random);
          PremixParams params = premix_params(s, tables, out, d, out_type);
          params.order = nullptr;
          params.permutation = given.data();
          launch(premix_kernel(), {200}, params, nullptr);
          check_premixed(s, given, out, d, out_type);
        }
}

TEST_CASE("common premix: a permutation that is none gives NaN") {
  const int64_t k = 40, d = 6;
  Setup s(1, k, d, 33);
  s.set_mixing(FNCE_LAMBDA_ELEMENT, FNCE_SAMPLED);
  s.inputs();
  TableArrays tables(k, 1);
  std::vector<int32_t> permutation(k);
  std::iota(permutation.rbegin(), permutation.rend(), 0);
  permutation[7] = -3;
  permutation[9] = static_cast<int32_t>(k);
  Bytes out(k * d * 4);
  PremixParams params = premix_params(s, tables, out, d, FNCE_FLOAT32);
  params.order = nullptr;
  params.permutation = permutation.data();
  launch(premix_kernel(), {2}, params, nullptr);
  for (int64_t i = 0; i < k * d; ++i)
    CHECK(std::isnan(element(out.data(), i, FNCE_FLOAT32)) == (i / d == 7 || i / d == 9));
  uint32_t invalid = 1;
  params.invalid = &invalid;
  launch(premix_kernel(), {2}, params, nullptr);
  for (int64_t i = 0; i < k * d; ++i) CHECK(std::isnan(element(out.data(), i, FNCE_FLOAT32)));
}

TEST_CASE("common check_permutation: bijections only") {
  const int64_t k = 777;
  Setup s(1, k, 1, 34);
  std::vector<int32_t> permutation(k);
  std::iota(permutation.begin(), permutation.end(), 0);
  std::shuffle(permutation.begin(), permutation.end(), s.random);
  const auto invalid = [&](size_t at, int32_t value) {
    std::vector<int32_t> changed = permutation;
    changed[at] = value;
    std::vector<uint32_t> seen((k + 31) / 32, 0);
    uint32_t result = 0;
    launch(check_permutation_kernel(), {2}, {changed.data(), k, seen.data(), &result}, nullptr);
    return result != 0;
  };
  CHECK_FALSE(invalid(5, permutation[5]));
  CHECK(invalid(5, permutation[6]));
  CHECK(invalid(0, -1));
  CHECK(invalid(k - 1, static_cast<int32_t>(k)));
}

TEST_CASE("common push: rows and position are those of the CPU") {
  for (const int64_t n : {1, 5, 12, 31})
    for (const int32_t key_type : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
      for (const int32_t queue_type : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
        for (const int32_t normalize : {0, 1}) {
          const int64_t k = 12, d = 70, position = 9;
          Setup s(n, k, d, 41);
          s.x_q[3] = n == 12 ? kNan : s.x_q[3];
          for (int64_t c = 0; n == 31 && c < d; ++c) s.x_q[static_cast<size_t>(30 * d + c)] = 0;
          const Bytes keys = encode(s.x_q, key_type);
          Bytes cpu_queue = encode(s.queue, queue_type), queue = cpu_queue;
          int64_t cpu_out = -1, out = -1;
          fnce_push push;
          FNCE_REQUIRE_OK(fnce_push_init(&push, sizeof push));
          push.n = n;
          push.k = k;
          push.d = d;
          push.key_type = key_type;
          push.queue_type = queue_type;
          push.normalize = normalize;
          push.keys = keys.data();
          push.queue = cpu_queue.data();
          push.position_in = &position;
          push.position_out = &cpu_out;
          FNCE_REQUIRE_OK(fnce_queue_push(&push, nullptr));
          PushParams params = {keys.data(), queue.data(), &position,  &out,      n,     k,
                               d,           key_type,     queue_type, normalize, 1e-12f};
          launch(push_kernel(), {4}, params, nullptr);
          launch(push_position_kernel(), {}, params, nullptr);
          CHECK(out == cpu_out);
          check_pushed(queue, cpu_queue, k, d, queue_type, normalize);
          // A position outside the ring writes inside it.
          for (const int64_t wrong : {k * 1000 + 9, int64_t{-3}, -5 * k - 3}) {
            Bytes other = encode(s.queue, queue_type);
            params.queue = other.data();
            params.position_in = &wrong;
            launch(push_kernel(), {4}, params, nullptr);
            launch(push_position_kernel(), {}, params, nullptr);
            CHECK(other == queue);
            CHECK(out == cpu_out);
          }
        }
}

TEST_CASE("common scale: bits are those of the CPU") {
  Setup s(1, 1, 1, 51);
  for (const int64_t columns : {1, 3, 8, 257})
    for (const int32_t type : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
      for (const bool per_row : {false, true}) {
        const int64_t rows = 7;
        std::vector<float> gradient = s.normal(rows * columns, 100.0f);
        gradient[0] = kNan;
        std::vector<float> upstream = s.normal(rows, 30.0f);
        upstream[3] = HUGE_VALF;
        Bytes cpu(static_cast<size_t>(rows * columns * 4)), out(cpu.size());
        FNCE_REQUIRE_OK(fnce_scale(FNCE_CPU, 0, gradient.data(), rows, columns, upstream.data(), per_row ? rows : 1,
                                   type, cpu.data(), nullptr));
        launch(scale_kernel(), {3}, {gradient.data(), upstream.data(), out.data(), rows, columns, per_row, type},
               nullptr);
        for (int64_t i = 0; i < rows * columns; ++i) {
          const float x = element(out.data(), i, type), y = element(cpu.data(), i, type);
          if (!(x == y || (std::isnan(x) && std::isnan(y)))) FAIL("element " << i << ": " << x << ", " << y);
        }
      }
}
