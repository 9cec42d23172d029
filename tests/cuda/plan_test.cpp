// Which kernels a problem gets, on invented devices: family, operand, tile, splits, workspace, and what plans tell of
// them.
#include "kernels/host/plan.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "core/plan_info.h"
#include "core/status.h"
#include "kernels/engines/plain/kernels.h"
#include "kernels/engines/sm80/kernels.h"
#include "kernels/host/families.h"
#include "kernels/host/workspace.h"
#include "support/catch.h"

namespace {

using namespace fnce;
using namespace fnce::cuda;

const DeviceCaps kT4 = {7, 5, 40, 64 << 10, "T4"};
const DeviceCaps kA100 = {8, 0, 108, 163 << 10, "A100"};
const DeviceCaps k4090 = {8, 9, 128, 99 << 10, "4090"};
const DeviceCaps kH200 = {9, 0, 132, 227 << 10, "H200"};
const DeviceCaps kTiny = {8, 6, 2, 99 << 10, "tiny"};
const DeviceCaps kAll[] = {kT4, kA100, k4090, kH200, kTiny};

struct Shape {
  int64_t n, k, d;
};

fnce_problem problem_of(const Shape& shape, int32_t queue_type, int32_t preset = FNCE_PRESET_MOCO) {
  fnce_problem p;
  REQUIRE(fnce_problem_init(&p, sizeof p, preset) == FNCE_OK);
  p.device = FNCE_CUDA;
  p.n = shape.n;
  p.k = shape.k;
  p.d = shape.d;
  p.queue_type = queue_type;
  return p;
}

CudaChoice choose(const fnce_problem& p, const DeviceCaps& caps, const Family* forced = nullptr) {
  return fnce::cuda::choose(Problem(&p), caps, forced);
}

fnce_plan_info told(const fnce_problem& p, const DeviceCaps& caps, const Family* forced = nullptr) {
  const Problem problem(&p);
  const CudaChoice choice = fnce::cuda::choose(problem, caps, forced);
  return info_of(problem, choice, caps, Workspace(nullptr, problem, choice).bytes());
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <class Call>
fnce_status refused(Call&& call, const char* word) {
  try {
    call();
    return FNCE_OK;
  } catch (const StatusError& error) {
    INFO(error.what());
    CHECK(holds(error.what(), word));
    return error.code();
  }
}

sm80::Tile tile_of(const MainLaunch& launch) {
  const sm80::Instance instance = sm80::instance_of(launch.kernel_id);
  return sm80::tile_of(instance.operand, instance.tile);
}

sm80::Variant variant_of(const MainLaunch& launch) { return sm80::instance_of(launch.kernel_id).variant; }

// What must hold of every launch, whatever the problem.
void check_launch(const Problem& problem, const CudaChoice& choice, const MainLaunch& launch, const DeviceCaps& caps) {
  const int64_t n = problem.n(), d = problem.d();
  bool good = launch.splits >= 1 && launch.splits <= 65535 && launch.columns % 16 == 0 && launch.padded_rows() >= n &&
              launch.padded_rows() - n < launch.rows;
  // No split is shorter than four column tiles unless there is one only, and sums have an end.
  good = good && (launch.splits == 1 || launch.column_tiles / launch.splits >= 4);
  good = good && (launch.splits == 1 || launch.splits * n * d * 4 <= (int64_t{256} << 20));
  // Blocks run in few waves, unless sums in the matrix units would grow too long.
  const int64_t per_sm = choice.packs() ? 1 : 4;
  const bool cuts_off = choice.packs() && choice.operand != Operand::kHalfSplit;
  const int64_t keys = launch.column_tiles * launch.columns;
  good = good && (launch.splits == 1 || launch.blocks() <= 8 * caps.sm_count * per_sm ||
                  (cuts_off && (launch.splits - 1) * (1 << 14) < keys));
  good =
      good && (!cuts_off || launch.splits * int64_t{1 << 14} >= keys || (launch.splits + 1) * 4 > launch.column_tiles ||
               (launch.splits + 1) * n * d * 4 > (int64_t{256} << 20));
  if (choice.packs()) {
    const sm80::Instance instance = sm80::instance_of(launch.kernel_id);
    const sm80::Tile tile = sm80::tile_of(instance.operand, instance.tile);
    good = good && instance.operand == choice.operand && tile.d >= d && (tile.d == 64 || tile.d < 2 * d) &&
           tile.d == launch.features && tile.rows() == launch.rows && tile.columns == launch.columns &&
           sm80::shared_bytes(choice.operand, tile) <= caps.shared_bytes &&
           (instance.variant != sm80::Variant::kStatistics || tile.statistics);
  }
  CAPTURE(n, problem.k(), d, launch.splits, launch.row_blocks, launch.column_tiles, caps.name);
  CHECK(good);
}

}  // namespace

TEST_CASE("cuda plan: family and operand follow device, features and types") {
  struct Row {
    DeviceCaps caps;
    int64_t d;
    int32_t type, precision;
    const Family* family;
    Operand operand;
  };
  const Family *const plain = &plain::family(), *const sm80 = &sm80::family();
  const Row rows[] = {
      {kH200, 128, FNCE_FLOAT32, FNCE_PRECISION_EXACT, sm80, Operand::kHalfSplit},
      {kH200, 128, FNCE_FLOAT32, FNCE_PRECISION_FAST, sm80, Operand::kHalfFast},
      {kH200, 128, FNCE_FLOAT16, FNCE_PRECISION_EXACT, sm80, Operand::kHalf},
      {kH200, 128, FNCE_BFLOAT16, FNCE_PRECISION_FAST, sm80, Operand::kBfloat},
      {kA100, 1, FNCE_BFLOAT16, FNCE_PRECISION_EXACT, sm80, Operand::kBfloat},
      {k4090, 512, FNCE_FLOAT16, FNCE_PRECISION_EXACT, sm80, Operand::kHalf},
      {k4090, 513, FNCE_FLOAT16, FNCE_PRECISION_EXACT, plain, Operand::kFloat32},
      {k4090, 512, FNCE_FLOAT32, FNCE_PRECISION_EXACT, sm80, Operand::kHalfSplit},
      {k4090, 512, FNCE_FLOAT32, FNCE_PRECISION_FAST, sm80, Operand::kHalfFast},
      {k4090, 513, FNCE_FLOAT32, FNCE_PRECISION_EXACT, plain, Operand::kFloat32},
      {kT4, 128, FNCE_FLOAT16, FNCE_PRECISION_EXACT, plain, Operand::kFloat32},
      {kTiny, 64, FNCE_FLOAT16, FNCE_PRECISION_EXACT, sm80, Operand::kHalf},
      {kH200, 100000, FNCE_FLOAT16, FNCE_PRECISION_EXACT, plain, Operand::kFloat32},
      {{8, 0, 10, 32 << 10, "too small"}, 128, FNCE_FLOAT16, FNCE_PRECISION_EXACT, plain, Operand::kFloat32},
  };
  for (const Row& row : rows) {
    fnce_problem p = problem_of({256, 65536, row.d}, row.type);
    p.precision = row.precision;
    const CudaChoice choice = choose(p, row.caps);
    CAPTURE(row.caps.name, row.d, row.type, row.precision);
    CHECK(choice.family == row.family);
    CHECK(choice.operand == row.operand);
    CHECK((choice.reason.code == FNCE_REASON_NONE) == (row.family == sm80));
    CHECK(choice.may_fall_back() == (row.family == sm80 && row.type == FNCE_FLOAT32));
  }
}

TEST_CASE("cuda families: the last one serves everything, and kernels are known by their numbers") {
  REQUIRE(families().size() >= 2);
  for (const DeviceCaps& caps : kAll)
    for (const int64_t d : {1, 513, 100000}) {
      const fnce_problem p = problem_of({256, 65536, d}, FNCE_FLOAT32);
      CHECK(families().back()->obstacle(Problem(&p), caps).code == FNCE_REASON_NONE);
      CHECK(families().back()->operand(Problem(&p)) == Operand::kFloat32);
    }
  for (const Operand operand : {Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast})
    for (int tile = 0; tile < sm80::tiles_of(operand).count; ++tile)
      for (const auto variant : {sm80::Variant::kPlain, sm80::Variant::kMixed, sm80::Variant::kStatistics}) {
        const int32_t id = sm80::id_of({operand, tile, variant});
        const sm80::Instance instance = sm80::instance_of(id);
        CHECK((instance.operand == operand && instance.tile == tile && instance.variant == variant));
        CHECK(sm80::family().kernel(id).function == sm80::main_kernel(operand, tile, variant).function);
      }
}

TEST_CASE("cuda plan: tiles and splits of the usual shapes") {
  struct Row {
    DeviceCaps caps;
    Shape shape;
    int rows;
    int32_t splits;
  };
  const Row rows[] = {
      {kH200, {256, 65536, 128}, 128, 64},
      {kH200, {32, 65536, 128}, 32, 128},
      {kH200, {33, 65536, 128}, 64, 128},
      {kH200, {1024, 65536, 128}, 128, 16},
      {kH200, {256, 65536, 256}, 64, 33},
      {kH200, {256, 65536, 512}, 64, 33},
      // Few keys: small tiles, so that there are blocks for more multiprocessors.
      {kH200, {256, 4096, 128}, 32, 16},
      {kH200, {256, 64, 128}, 32, 1},
      {kH200, {256, 0, 128}, 32, 1},
      {kTiny, {256, 4096, 128}, 128, 1},
      {kH200, {4096, 4096, 128}, 128, 4},
      {kH200, {64, 4096, 64}, 32, 16},
      {kTiny, {256, 65536, 128}, 128, 4},
      {kTiny, {64, 65536, 128}, 64, 4},
      {kA100, {100000, 65536, 128}, 128, 4},
      {kT4, {256, 65536, 128}, 16, 10},
      {kT4, {1, 65536, 2048}, 16, 147},
      {kH200, {1, 1 << 20, 128}, 32, 132},
  };
  for (const Row& row : rows) {
    const CudaChoice choice = choose(problem_of(row.shape, FNCE_FLOAT16), row.caps);
    CAPTURE(row.caps.name, row.shape.n, row.shape.k, row.shape.d);
    CHECK(choice.loss.rows == row.rows);
    CHECK(choice.loss.splits == row.splits);
  }
}

TEST_CASE("cuda plan: a tile fits into the device's shared memory") {
  // As large as each tile in turn: that one or a smaller one, and none is too small.
  const fnce_problem p = problem_of({4096, 65536, 128}, FNCE_FLOAT16);
  std::set<int> rows;
  for (int index = 0; index < sm80::tiles_of(Operand::kHalf).count; ++index) {
    const sm80::Tile tile = sm80::tile_of(Operand::kHalf, index);
    if (tile.d != 128) continue;
    const int64_t bytes = sm80::shared_bytes(Operand::kHalf, tile);
    const CudaChoice choice = choose(p, {8, 0, 10, bytes, "as large as a tile"});
    if (choice.packs()) {
      CHECK(sm80::shared_bytes(Operand::kHalf, tile_of(choice.loss)) <= bytes);
      CHECK(sm80::shared_bytes(Operand::kHalf, tile_of(choice.scores)) <= bytes);
      rows.insert(choice.loss.rows);
    } else {
      CHECK(choice.reason.code == FNCE_REASON_SHARED_MEMORY);
      CHECK(choice.reason.limit > bytes);
    }
  }
  // The smallest has no statistics, which fnce_scores needs.
  CHECK(rows == std::set<int>{64, 128});
}

TEST_CASE("cuda plan: every tile is chosen, for a few queries, on devices of few multiprocessors") {
  std::set<std::pair<Operand, int>> chosen;
  for (const int32_t type : {FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16})
    for (const int32_t precision : {FNCE_PRECISION_EXACT, FNCE_PRECISION_FAST}) {
      for (const int sms : {1, 8})
        for (const int64_t n : {1, 33, 64, 65, 129})
          for (const int64_t d : {64, 128, 256, 512}) {
            fnce_problem p = problem_of({n, 130, d}, type);
            p.precision = precision;
            const CudaChoice choice = choose(p, {8, 0, sms, 99 << 10, "invented"});
            chosen.emplace(choice.operand, sm80::instance_of(choice.loss.kernel_id).tile);
            chosen.emplace(choice.operand, sm80::instance_of(choice.scores.kernel_id).tile);
          }
    }
  size_t all = 0;
  for (const Operand operand : {Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast})
    all += static_cast<size_t>(sm80::tiles_of(operand).count);
  CHECK(chosen.size() == all);
}

// How much of the device works while the last blocks do, were all of them equally long: at least 85 % as soon as there
// are rows and keys for every multiprocessor.
TEST_CASE("cuda plan: no number of queries leaves much of the device idle") {
  for (const DeviceCaps& caps : {kH200, kA100, k4090})
    for (int64_t n = 1; n <= 20000; n += n < 300 ? 1 : 97)
      for (const int64_t d : {128, 512}) {
        const MainLaunch launch = choose(problem_of({n, 65536, d}, FNCE_FLOAT16), caps).loss;
        if (launch.splits * n * d * 4 > (int64_t{200} << 20)) continue;  // more sums than that are too many
        const int64_t waves = (launch.blocks() + caps.sm_count - 1) / caps.sm_count;
        const int64_t longest = waves * ((launch.column_tiles + launch.splits - 1) / launch.splits);
        const double busy = static_cast<double>(launch.row_blocks * launch.column_tiles) /
                            (static_cast<double>(longest) * caps.sm_count);
        CAPTURE(caps.name, n, d, launch.splits, launch.row_blocks, busy);
        if (busy < 0.85) FAIL("idle");
      }
}

TEST_CASE("cuda plan: launches fit any device, for any number of features") {
  for (const DeviceCaps& caps : kAll)
    for (int64_t d = 1; d <= 2000; d += d < 600 ? 1 : 37)
      for (const int32_t type : {FNCE_FLOAT32, FNCE_FLOAT16})
        for (const Shape& size :
             {Shape{1, 16, 0}, Shape{256, 65536, 0}, Shape{5000, 1000003, 0}, Shape{100000, 0, 0}}) {
          fnce_problem p = problem_of({size.n, size.k, d}, type, d % 2 ? FNCE_PRESET_FT : FNCE_PRESET_FT_ELEMENTWISE);
          p.precision = d % 3 == 0 ? FNCE_PRECISION_FAST : FNCE_PRECISION_EXACT;
          p.scores = static_cast<int32_t>(d / 2 % 4);
          const Problem problem(&p);
          const CudaChoice choice = choose(p, caps);
          check_launch(problem, choice, choice.loss, caps);
          check_launch(problem, choice, choice.scores, caps);
        }
}

TEST_CASE("cuda plan: mixed as scores where that is possible, else once before the pass") {
  fnce_problem p = problem_of({64, 1000, 100}, FNCE_FLOAT16, FNCE_PRESET_FT);
  CudaChoice choice = choose(p, kH200);
  CHECK((choice.mixes_scores && !choice.premixes));
  CHECK(variant_of(choice.loss) == sm80::Variant::kMixed);
  CHECK((told(p, kH200).mixing == FNCE_MIXING_SCORES && told(p, kH200).mixing_reason == FNCE_REASON_NONE));
  p.renormalize_neg = 1;
  choice = choose(p, kH200);
  CHECK((!choice.mixes_scores && choice.premixes));
  CHECK(variant_of(choice.loss) == sm80::Variant::kPlain);
  CHECK(choice.premixed_type == FNCE_FLOAT16);
  CHECK(choice.premixed_stride == 104);
  CHECK(choose(p, kT4).premixed_type == FNCE_FLOAT32);
  CHECK(choose(p, kT4).premixed_stride == 100);
  CHECK(told(p, kH200).mixing == FNCE_MIXING_BEFORE_PASS);
  CHECK(told(p, kH200).mixing_reason == FNCE_REASON_RENORMALIZED);
  p.scores = FNCE_SCORES_MIXED;
  CHECK(variant_of(choose(p, kH200).loss) == sm80::Variant::kStatistics);
  p.k = 0;
  choice = choose(p, kH200);
  CHECK((!choice.mixes_scores && !choice.premixes));
}

TEST_CASE("cuda plan: the workspace holds the larger of its passes, and tables where there are any") {
  fnce_problem p = problem_of({256, 65536, 128}, FNCE_FLOAT16);
  const auto bytes = [](const fnce_problem& q, const DeviceCaps& caps) {
    const Problem problem(&q);
    return Workspace(nullptr, problem, fnce::cuda::choose(problem, caps, nullptr)).bytes();
  };
  const uint64_t moco = bytes(p, kH200);
  const auto o = static_cast<uint64_t>(choose(p, kH200).loss.splits) * 256 * 128 * 4;
  CHECK(moco >= o);
  CHECK(moco < o + o / 4 + (1 << 20));
  fnce_problem ft = p;
  ft.lambda_neg = FNCE_LAMBDA_ROW;
  ft.columns = FNCE_COLUMNS_MIXED;
  CHECK(bytes(ft, kH200) >= moco + 65536 * 8);
  ft.lambda_neg = FNCE_LAMBDA_ELEMENT;
  CHECK(bytes(ft, kH200) >= moco + 65536 * (4 + 128 * 2));
  p.d = 5000;
  CHECK(bytes(p, kH200) >= uint64_t{256} * 5000 * 4 * kRowArrays);
  // Every piece lies where the constructor that counted says.
  alignas(256) static unsigned char memory[1 << 20];
  const fnce_problem small = problem_of({5, 100, 24}, FNCE_FLOAT32, FNCE_PRESET_FT);
  const Problem problem(&small);
  const CudaChoice choice = fnce::cuda::choose(problem, kTiny, nullptr);
  const Workspace workspace(memory, problem, choice);
  REQUIRE(workspace.bytes() <= sizeof memory);
  const auto* end = memory + workspace.bytes();
  const PartialView sums = workspace.split_partials(problem, choice.scores, FNCE_SCORES_MIXED);
  CHECK(reinterpret_cast<unsigned char*>(sums.stats[0].n_greater_equal + choice.scores.splits * 5) <= end);
  CHECK((workspace.queue_extent && workspace.order && workspace.lambda && !workspace.premixed && !workspace.seen));
}

TEST_CASE("cuda plan: plans tell what is multiplied, and why a plan is plain") {
  fnce_problem p = problem_of({256, 65536, 128}, FNCE_FLOAT32);
  fnce_plan_info info = told(p, kH200);
  CHECK((info.family == FNCE_FAMILY_SM80 && info.family_reason == FNCE_REASON_NONE && info.better_family == 0));
  CHECK((info.products == FNCE_PRODUCTS_FLOAT16X3 && info.fallback_family == FNCE_FAMILY_PLAIN));
  CHECK((info.compute_capability == 90 && info.shared_memory_bytes == 227 << 10 &&
         std::string(info.device_name) == "H200"));
  CHECK((info.multiprocessors == 132 && info.planned_multiprocessors == 132));
  p.precision = FNCE_PRECISION_FAST;
  CHECK(told(p, kH200).products == FNCE_PRODUCTS_FLOAT16_FAST);
  p.queue_type = FNCE_FLOAT16;
  CHECK(told(p, kH200).products == FNCE_PRODUCTS_FLOAT16);
  p.queue_type = FNCE_BFLOAT16;
  CHECK((told(p, kH200).products == FNCE_PRODUCTS_BFLOAT16 && told(p, kH200).fallback_family == 0));
  info = told(p, kT4);
  CHECK((info.family == FNCE_FAMILY_PLAIN && info.products == FNCE_PRODUCTS_FLOAT32 && info.fallback_family == 0));
  CHECK((info.better_family == FNCE_FAMILY_SM80 && info.family_reason == FNCE_REASON_COMPUTE_CAPABILITY &&
         info.family_limit == 80));
  for (const Family* forced : families()) {
    info = told(p, kH200, forced);
    CHECK(info.family == forced->code);
    CHECK((info.family_reason == FNCE_REASON_FORCED && info.better_family == 0 && info.family_limit == 0));
  }
  p.d = 513;
  info = told(p, kH200);
  CHECK((info.better_family == FNCE_FAMILY_SM80 && info.family_reason == FNCE_REASON_FEATURES &&
         info.family_limit == 512));
  p.d = 128;
  info = told(p, {8, 0, 10, 32 << 10, "too small"});
  CHECK((info.better_family == FNCE_FAMILY_SM80 && info.family_reason == FNCE_REASON_SHARED_MEMORY &&
         info.shared_memory_bytes == 32 << 10 && info.family_limit > 32 << 10));
}

TEST_CASE("cuda plan: plans tell how their work is cut, and for which device") {
  const fnce_problem p = problem_of({256, 65536, 100}, FNCE_FLOAT16);
  for (const DeviceCaps& caps : kAll) {
    const MainLaunch launch = choose(p, caps).loss;
    const fnce_plan_info info = told(p, caps);
    CAPTURE(caps.name);
    CHECK((info.row_blocks == launch.row_blocks && info.block_rows == launch.rows && info.splits == launch.splits));
    CHECK((info.column_tiles == launch.column_tiles && info.tile_columns == launch.columns));
    CHECK(info.tile_features == (info.family == FNCE_FAMILY_SM80 ? 128 : 100));
    CHECK(info.tasks == launch.blocks());
    CHECK((info.compute_capability == caps.arch() && info.multiprocessors == caps.sm_count));
  }
  DeviceCaps half = kH200;
  half.sm_count = 66;
  const Problem problem(&p);
  const fnce_plan_info cut = info_of(problem, fnce::cuda::choose(problem, half, nullptr), kH200, 1);
  CHECK((cut.multiprocessors == 132 && cut.planned_multiprocessors == 66 && cut.workspace_bytes == 1));
  // The raw queue is passed as well where it is not what is mixed.
  fnce_problem both = problem_of({256, 65536, 100}, FNCE_FLOAT16, FNCE_PRESET_FT_ELEMENTWISE);
  both.columns = FNCE_COLUMNS_UNION;
  CHECK(told(both, kH200).column_tiles * told(both, kH200).tile_columns == 2 * 65536);
  DeviceCaps named = kH200;
  named.name.assign(200, 'x');
  CHECK(std::string(told(p, named).device_name) == std::string(63, 'x'));
}

TEST_CASE("cuda plan: what cannot be served is refused with a sentence") {
  const fnce_problem p = problem_of({256, 65536, 600}, FNCE_FLOAT16);
  CHECK(forced_family(nullptr) == nullptr);
  CHECK(forced_family("") == nullptr);
  CHECK(forced_family("sm80") == &sm80::family());
  CHECK(forced_family("plain") == &plain::family());
  CHECK(planned_multiprocessors(nullptr, 132) == 132);
  CHECK(planned_multiprocessors("", 132) == 132);
  CHECK(planned_multiprocessors("1", 132) == 1);
  for (const char* text : {"0", "-1", "all", "8 or so", "99999999999999999999"})
    CHECK(refused([&] { planned_multiprocessors(text, 132); },
                  (std::string("FNCE_MULTIPROCESSORS in the environment is ") + text + "; allowed: 1 to").c_str()) ==
          FNCE_INVALID_ARGUMENT);
  CHECK(refused([] { forced_family("sm90"); }, "FNCE_BACKEND in the environment is sm90; allowed: sm80, plain") ==
        FNCE_INVALID_ARGUMENT);
  CHECK(refused([&] { choose(p, kH200, &sm80::family()); }, "up to 512 features") == FNCE_UNSUPPORTED);
  CHECK(refused([&] { choose(p, kT4, &sm80::family()); }, "compute capability 8.0") == FNCE_UNSUPPORTED);
  const DeviceCaps old = {7, 0, 80, 96 << 10, "V100"};
  CHECK(refused([&] { choose(p, old); }, "V100, compute capability 7.0") == FNCE_UNSUPPORTED);
  fnce_problem huge = p;
  huge.n = 2147483647;
  CHECK(refused([&] { choose(huge, kH200); }, "problem.n") == FNCE_UNSUPPORTED);
}
