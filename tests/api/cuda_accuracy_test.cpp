// The CUDA backend's arithmetics against the oracle where they could go wrong: around the edges of every tile, beyond
// float16's range, with lambdas far outside [0, 1], with weights that float16 can hardly hold.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/products.h"
#include "support/random_case.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
constexpr const char* kGpuOnly = "it is about the CUDA backend";

bool on_gpu() { return device().kind() == FNCE_CUDA; }

struct Arithmetic {
  int32_t queue_type, precision;
};
const std::vector<Arithmetic> kArithmetics{{FNCE_FLOAT32, FNCE_PRECISION_EXACT},
                                           {FNCE_FLOAT32, FNCE_PRECISION_FAST},
                                           {FNCE_FLOAT16, FNCE_PRECISION_EXACT},
                                           {FNCE_BFLOAT16, FNCE_PRECISION_EXACT}};

// The ways through the backend: raw rows, mixed scores, mixed rows, and both kinds of columns.
enum class Way { kRaw, kScores, kScoresAndRaw, kRows, kRowsAndRaw };
const std::vector<Way> kWays{Way::kRaw, Way::kScores, Way::kScoresAndRaw, Way::kRows, Way::kRowsAndRaw};

Case case_of(Way way, const Arithmetic& a, int64_t n, int64_t k, int64_t d, uint64_t seed) {
  const bool rows = way == Way::kRows || way == Way::kRowsAndRaw;
  Case c = make_case(way == Way::kRaw ? FNCE_PRESET_MOCO : rows ? FNCE_PRESET_FT_ELEMENTWISE : FNCE_PRESET_FT, n, k, d);
  if (way == Way::kScoresAndRaw || way == Way::kRowsAndRaw) c.problem.columns = FNCE_COLUMNS_UNION;
  if (way == Way::kScoresAndRaw) c.problem.lambda_neg = FNCE_LAMBDA_ROW;
  set_types(c, FNCE_FLOAT32, a.queue_type, FNCE_FLOAT32);
  c.problem.precision = a.precision;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.numbers.seed = seed;
  Random random(seed);
  fill_inputs(c, random);
  return c;
}

void check(const Case& c) {
  INFO(describe(c) << " precision=" << c.problem.precision);
  FNCE_CHECK_VERDICT(check_case(c));
}

// New plans cut their work as for a GPU of so many multiprocessors; "" is as many as it has.
struct Multiprocessors {
  explicit Multiprocessors(const char* count) { setenv("FNCE_MULTIPROCESSORS", count, 1); }
  ~Multiprocessors() { unsetenv("FNCE_MULTIPROCESSORS"); }
};

// A tile of the sm80 family: products, features as they are padded, queries of a block, negatives.
using Tile = std::tuple<int32_t, int64_t, int64_t, int64_t>;

// The plain family has one tile.
void add_tile(const Case& c, std::set<Tile>& tiles) {
  const fnce_plan_info info = Plan(c.problem).info();
  if (info.family == FNCE_FAMILY_SM80)
    tiles.emplace(info.products, info.tile_features, info.block_rows, info.tile_columns);
}

void scale_rows(std::vector<float>& rows, float by) {
  for (float& x : rows) x *= by;
}

}  // namespace

TEST_CASE("cuda: numbers of queries, keys and features around the edges of every tile") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  const std::vector<int64_t> all_n{1, 31, 32, 33, 64, 65, 128, 129, 130};
  const std::vector<int64_t> all_k{0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 1000};
  const std::vector<int64_t> all_d{1, 3, 8, 13, 63, 64, 65, 100, 127, 128, 129, 200, 256, 257, 300, 512, 513};
  uint64_t seed = 80000;
  std::set<Tile> tiles;
  // Two arithmetics, in turn with the other two: each meets every number, and with the second count below every shape.
  size_t turn = 0;
  const auto sweep = [&](int64_t n, int64_t k, int64_t d) {
    for (size_t i = turn++ % 2; i < kArithmetics.size(); i += 2) {
      ++seed;
      Case c = case_of(kWays[seed % kWays.size()], kArithmetics[i], n, affordable(n, k, d), d, seed);
      if (seed % 3 == 0) c.problem.scores = static_cast<int32_t>(1 + seed / 3 % 3);
      add_tile(c, tiles);
      check(c);
    }
  };
  // As the device is, so few queries and keys get small tiles; as for one multiprocessor, tiles as large as the queries
  // fill.
  for (const char* count : {"", "1"}) {
    if (*count && tiles.empty()) break;  // the plain family has one tile
    const Multiprocessors cut(count);
    INFO("FNCE_MULTIPROCESSORS " << count);
    turn = *count ? 1 : 0;
    for (size_t i = 0; i < all_d.size(); ++i)
      for (size_t j = 0; j < 3; ++j)
        sweep(all_n[(i + 3 * j) % all_n.size()], all_k[(2 * i + 4 * j) % all_k.size()], all_d[i]);
    for (const int64_t k : all_k)
      for (const int64_t d : {16, 64, 72, 256}) sweep(d == 64 ? 33 : 5, k, d);
    for (const int64_t n : all_n)
      for (const int64_t d : {8, 65, 128, 129, 300}) sweep(n, 49, d);
  }
  // All that kernels/engines/sm80/tile.h has: 9 each for float16 and bfloat16, 7 for float16x3, 6 for float16-fast.
  if (!tiles.empty()) CHECK(tiles.size() == 31);
}

TEST_CASE("cuda: every number of keys up to a tile of the smallest and two more") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const Arithmetic& a : kArithmetics)
    for (int64_t k = 1; k <= 66; ++k) {
      Case c = case_of(Way::kScoresAndRaw, a, 3, k, 24, 80500 + static_cast<uint64_t>(k));
      if (k % 2) c.problem.columns = FNCE_COLUMNS_MIXED;
      check(c);
    }
}

TEST_CASE("cuda: float32 queues far outside float16's range") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const int32_t precision : {FNCE_PRECISION_EXACT, FNCE_PRECISION_FAST})
    for (const Way way : kWays)
      for (const float scale : {1e3f, 3e5f, 1e-4f, 1e-12f}) {
        Case c = case_of(way, {FNCE_FLOAT32, precision}, 9, 100, 64, 81000);
        c.problem.scores = kBoth;
        scale_rows(c.arrays.queue, scale);
        // Temperatures that keep scores in a softmax's reach.
        c.numbers.temperature = std::max(1e-6f, 0.2f * scale);
        INFO("scale " << scale);
        check(c);
      }
}

TEST_CASE("cuda: one element of a float32 queue outside float16's range, at either side of the limits") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const int32_t precision : {FNCE_PRECISION_EXACT, FNCE_PRECISION_FAST})
    for (const Way way : kWays)
      for (const float element : {3.8f, 3.99f, 4.01f, 30.0f, 65536.0f, 1e9f})
        for (const size_t place : {size_t{0}, size_t{50 * 64 + 31}, size_t{100 * 64 - 1}}) {
          Case c = case_of(way, {FNCE_FLOAT32, precision}, 9, 100, 64, 82000);
          c.problem.scores = kBoth;
          c.arrays.queue[place] = element;
          INFO("element " << element << " at " << place);
          check(c);
        }
}

TEST_CASE("cuda: features of any length without normalisation keep their digits") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const Arithmetic& a : kArithmetics)
    for (const float scale : {1e-8f, 1e-4f, 1e3f, 1e6f}) {
      Case c = case_of(Way::kScores, a, 9, 100, 40, 83000);
      c.problem.normalize = 0;
      for (size_t i = 0; i < c.arrays.x_q.size(); i += 2) c.arrays.x_q[i] *= 1e-3f;
      scale_rows(c.arrays.x_q, scale);
      c.numbers.temperature = 0.2f * scale;
      INFO("scale " << scale);
      check(c);
    }
}

TEST_CASE("cuda: given lambdas per row from -9 to 10, and per call") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const Arithmetic& a : kArithmetics)
    for (const int32_t granularity : {FNCE_LAMBDA_CALL, FNCE_LAMBDA_ROW})
      for (const int32_t columns : {FNCE_COLUMNS_MIXED, FNCE_COLUMNS_UNION})
        for (const float largest : {1.0f, 2.0f, 10.0f}) {
          Case c = case_of(Way::kScores, a, 17, 150, 64, 84000);
          c.problem.lambda_neg = granularity;
          c.problem.lambda_neg_source = FNCE_GIVEN;
          c.problem.columns = columns;
          c.problem.scores = kBoth;
          Random random(84001);
          c.arrays.lambda_neg.resize(granularity == FNCE_LAMBDA_CALL ? 1 : 150);
          for (float& lambda : c.arrays.lambda_neg) lambda = static_cast<float>(random.uniform(1 - largest, largest));
          c.arrays.lambda_neg[0] = largest;
          if (granularity == FNCE_LAMBDA_ROW) c.arrays.lambda_neg[149] = 1 - largest;
          for (const float temperature : {0.07f, 1.0f}) {
            c.numbers.temperature = temperature;
            INFO("largest lambda " << largest);
            check(c);
          }
        }
}

TEST_CASE("cuda: one dominating negative above a bulk 17 nats below, wherever it stands") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  const int64_t n = 2, d = 8, k = device().emulated() ? 12000 : 65535;
  for (const Arithmetic& a : kArithmetics)
    for (const Way way : {Way::kRaw, Way::kScores, Way::kRows})
      for (const int64_t place : {int64_t{0}, k / 2, k - 1}) {
        Case c = case_of(way, a, n, k, d, 85000);
        c.problem.lambda_pos = FNCE_LAMBDA_NONE;
        c.numbers.temperature = 0.1f;
        for (auto* rows : {&c.arrays.x_q, &c.arrays.x_k}) std::fill(rows->begin(), rows->end(), 0.0f);
        for (size_t i = 0; i < 2; ++i) {
          c.arrays.x_q[i * 8] = 1;
          c.arrays.x_k[i * 8] = -0.5f;
          c.arrays.x_k[i * 8 + 3] = 0.5f;
        }
        // The bulk points one way, so that nothing cancels.
        std::fill(c.arrays.queue.begin(), c.arrays.queue.end(), 0.0f);
        for (size_t j = 0; j < static_cast<size_t>(k); ++j) {
          c.arrays.queue[j * 8] = -0.85f;
          c.arrays.queue[j * 8 + 1] = 0.5f;
        }
        c.arrays.queue[static_cast<size_t>(place) * 8] = 0.85f;
        c.arrays.queue[static_cast<size_t>(place) * 8 + 1] = 0.0f;
        c.arrays.queue = oracle::rounded(element_of(a.queue_type), c.arrays.queue);
        INFO("place " << place);
        check(c);
      }
}

TEST_CASE("cuda: scores that rise all along the queue, so that references follow") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const Arithmetic& a : kArithmetics)
    for (const Way way : {Way::kRaw, Way::kScoresAndRaw, Way::kRows})
      for (const bool rising : {true, false}) {
        const int64_t k = 2000, d = 16;
        Case c = case_of(way, a, 5, k, d, 86000);
        c.numbers.temperature = 0.02f;
        c.problem.scores = kBoth;
        for (int64_t j = 0; j < k; ++j) {
          const double lean = (rising ? 1 : -1) * (2.0 * double(j) / double(k - 1) - 1);
          for (int64_t col = 0; col < d; ++col) {
            float& x = c.arrays.queue[static_cast<size_t>(j * d + col)];
            x = static_cast<float>(0.2 * double(x) + 0.2 * lean * double(c.arrays.x_q[static_cast<size_t>(col)]));
          }
        }
        c.arrays.queue = oracle::rounded(element_of(a.queue_type), c.arrays.queue);
        check(c);
      }
}

TEST_CASE("cuda: the loss alone, the temperature's gradient alone, every statistic, on every way") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  // Every arithmetic has every statistic on every way, and with every width.
  const std::vector<int64_t> widths{24, 128, 300};
  size_t turn = 0;
  for (const Arithmetic& a : kArithmetics)
    for (const Way way : kWays) {
      for (const int32_t scores : {0, 1, 2, 3}) {
        const int64_t d = widths[(turn + static_cast<size_t>(scores)) % widths.size()];
        Case c = case_of(way, a, d > 200 ? 9 : 35, 70, d, 87000);
        c.problem.scores = scores;
        check(c);
        c.want = {true, false, false, false, false};
        check(c);
        c.want = {false, false, false, true, false};
        check(c);
      }
      ++turn;
    }
}

TEST_CASE("cuda: fnce_scores in every arithmetic") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const Arithmetic& a : kArithmetics)
    for (const Way way : {Way::kRaw, Way::kScores, Way::kRows})
      for (const int64_t d : {13, 64, 200, 400}) {
        const Case c = case_of(way, a, 35, 70, d, 88000);
        INFO(describe(c));
        FNCE_CHECK_VERDICT(compare_statistics(Truth(oracle_inputs(c)), ScoreSet::kPlain, run_scores(c)));
      }
}

TEST_CASE("cuda: a plan multiplies as its queue and precision say") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  using oracle::Products;
  const char* forced = std::getenv("FNCE_BACKEND");
  FNCE_SKIP_UNLESS(forced == nullptr || std::string(forced) != "plain", "FNCE_BACKEND is plain");
  const Products expected[] = {Products::kFloat16Split, Products::kFloat16Fast, Products::kFloat16,
                               Products::kBfloat16};
  for (size_t i = 0; i < kArithmetics.size(); ++i) {
    for (const int64_t d : {1, 64, 129, 256, 512})
      CHECK(products_of(case_of(Way::kScores, kArithmetics[i], 5, 32, d, 1)) == expected[i]);
    CHECK(products_of(case_of(Way::kScores, kArithmetics[i], 5, 32, 513, 1)) == Products::kFloat32);
  }
}
