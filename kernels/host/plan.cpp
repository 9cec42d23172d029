#include "kernels/host/plan.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>

#include "core/plan_info.h"
#include "core/status.h"
#include "core/types.h"
#include "kernels/host/families.h"
#include "kernels/rows/kernels.h"

namespace fnce::cuda {
namespace {

constexpr int kOldest = 75;                             // compute capability
constexpr int64_t kMaxSplits = 65535;                   // gridDim.y
constexpr int64_t kMaxBlocks = 2147483647;              // gridDim.x
constexpr int64_t kLeastTiles = 4;                      // column tiles of a split
constexpr int64_t kMaxSplitBytes = int64_t{256} << 20;  // of O over all splits: it is read again by the last kernel
// The time of a block, in queries times columns, is a guess that no device has confirmed. A split takes its columns and
// kElementsOfASplit / D more, to start and to end. A column takes the rows of the block and kRowsOfAColumn more, to be
// loaded.
constexpr int64_t kElementsOfASplit = 1 << 15;
constexpr int64_t kRowsOfAColumn = 32;
constexpr int64_t kMostWaves = 8;  // of blocks

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// How a launch is cut into blocks. `time`: when the last of them ends.
struct Cut {
  int32_t splits;
  double time;
};

// The splits with which the last block ends first, when `at_once` blocks run at a time: blocks start in waves. There
// are not fewer splits than `least` where that can be, and not too many sums to merge.
Cut cut_of(const Problem& problem, const MainLaunch& launch, int64_t at_once, int64_t least) {
  const int64_t bytes = problem.n() * problem.d() * int64_t{sizeof(float)};
  const int64_t most =
      std::max<int64_t>(1, std::min({launch.column_tiles / kLeastTiles, kMaxSplitBytes / bytes, kMaxSplits}));
  Cut best = {0, std::numeric_limits<double>::infinity()};
  for (int64_t splits = std::clamp<int64_t>(least, 1, most); splits <= most; ++splits) {
    const int64_t waves = divide_up(launch.row_blocks * splits, at_once);
    if (waves > kMostWaves && best.splits > 0) break;
    const int64_t columns =
        divide_up(launch.column_tiles, splits) * launch.columns + kElementsOfASplit / launch.features;
    const double time = static_cast<double>(waves) * static_cast<double>(columns * (launch.rows + kRowsOfAColumn));
    if (time < best.time) best = {static_cast<int32_t>(splits), time};
  }
  return best;
}

// Takes the family's kernel whose blocks end first on the device's multiprocessors. The pass runs `times` over the
// queue, and over the batch columns.
MainLaunch launch_of(const Family& family, const Problem& problem, const DeviceCaps& caps, const PassKind& kind,
                     int times) {
  MainLaunch best = {};
  double least_time = std::numeric_limits<double>::infinity();
  for (const MainKernel& kernel : family.kernels(problem, caps, kind)) {
    MainLaunch launch = {.family = &family,
                         .kernel_id = kernel.id,
                         .rows = kernel.rows,
                         .columns = kernel.columns,
                         .features = kernel.features,
                         .row_blocks = divide_up(problem.n(), kernel.rows),
                         .column_tiles = divide_up(problem.k(), kernel.columns) * times +
                                         divide_up(problem.batch_columns(), kernel.columns),
                         .splits = 0};
    const int64_t least = divide_up(launch.column_tiles * kernel.columns, kernel.most_columns);
    const Cut cut = cut_of(problem, launch, int64_t{caps.sm_count} * kernel.blocks_per_sm, least);
    if (cut.time >= least_time) continue;
    launch.splits = cut.splits;
    best = launch;
    least_time = cut.time;
  }
  return best;
}

// The family's part of fnce_plan_info.
void tell_family(const CudaChoice& choice, const DeviceCaps& caps, fnce_plan_info& info) {
  info.family = choice.family ? choice.family->code : 0;
  info.better_family = choice.better ? choice.better->code : 0;
  info.family_reason = choice.reason.code;
  info.family_limit = choice.reason.limit;
  info.shared_memory_bytes = caps.shared_bytes;
}

void check_device(const Problem& problem, const DeviceCaps& caps) {
  if (caps.arch() < kOldest)
    throw StatusError(FNCE_UNSUPPORTED, "problem.device_index is " + to_text(int64_t{problem.raw().device_index}) +
                                            " (" + caps.name + ", compute capability " + caps.cc() +
                                            "); this version supports 7.5 and newer");
  if (problem.is_symmetric())
    unsupported("problem.form", to_text(int64_t{problem.raw().form}),
                "FNCE_FORM_INFO_NCE (0), FNCE_FORM_DECOUPLED (1) on FNCE_CUDA so far");
  if (problem.raw().batch_columns + kMaxTableBlocks > kMaxBlocks)
    unsupported("problem.batch_columns", to_text(problem.raw().batch_columns),
                "up to " + to_text(kMaxBlocks - kMaxTableBlocks) + " on a GPU");
  if (problem.n() + kMaxTableBlocks > kMaxBlocks)
    unsupported("problem.n", to_text(problem.n()), "up to " + to_text(kMaxBlocks - kMaxTableBlocks) + " on a GPU");
}

[[noreturn]] void refuse_forced(const Family& forced, const FamilyReason& reason, const DeviceCaps& caps) {
  CudaChoice none = {};
  none.better = &forced;
  none.reason = reason;
  fnce_plan_info info = {};
  info.device = FNCE_CUDA;
  tell_family(none, caps, info);
  throw StatusError(FNCE_UNSUPPORTED, std::string("FNCE_BACKEND in the environment is ") + family_name(forced.code) +
                                          ": " + family_reason_in_words(info));
}

void choose_family(const Problem& problem, const DeviceCaps& caps, const Family* forced, CudaChoice& choice) {
  if (forced) {
    const FamilyReason reason = forced->obstacle(problem, caps);
    if (reason.code != FNCE_REASON_NONE) refuse_forced(*forced, reason, caps);
    choice.family = forced;
    choice.reason = {FNCE_REASON_FORCED, 0};
    return;
  }
  for (const Family* family : families()) {
    const FamilyReason reason = family->obstacle(problem, caps);
    if (reason.code == FNCE_REASON_NONE) {
      choice.family = family;
      return;
    }
    if (choice.better) continue;  // of several reasons the best family's is told
    choice.better = family;
    choice.reason = reason;
  }
  throw StatusError(FNCE_INTERNAL_ERROR, "no family of kernels serves");
}

int32_t products_of(Operand operand) {
  switch (operand) {
    case Operand::kFloat32: return FNCE_PRODUCTS_FLOAT32;
    case Operand::kHalf: return FNCE_PRODUCTS_FLOAT16;
    case Operand::kBfloat: return FNCE_PRODUCTS_BFLOAT16;
    case Operand::kHalfSplit: return FNCE_PRODUCTS_FLOAT16X3;
    case Operand::kHalfFast: return FNCE_PRODUCTS_FLOAT16_FAST;
  }
  return 0;
}

}  // namespace

int planned_multiprocessors(const char* text, int all) {
  if (text == nullptr || *text == '\0') return all;
  constexpr long kMost = 1'000'000;
  char* end = nullptr;
  const long count = std::strtol(text, &end, 10);
  if (*end != '\0' || count < 1 || count > kMost)
    invalid("FNCE_MULTIPROCESSORS in the environment", text, "1 to " + to_text(int64_t{kMost}));
  return static_cast<int>(count);
}

CudaChoice choose(const Problem& problem, const DeviceCaps& caps, const Family* forced) {
  check_device(problem, caps);
  const fnce_problem& p = problem.raw();
  CudaChoice choice = {};
  choice.sm_count = caps.sm_count;
  choose_family(problem, caps, forced, choice);
  choice.operand = choice.family->operand(problem);
  const bool mixes = problem.mixes_negatives() && p.k > 0;
  choice.mixes_scores = mixes && problem.can_mix_scores();
  choice.premixes = mixes && !choice.mixes_scores;
  // Premixed rows are rounded to the queue's type where that is what is multiplied.
  choice.premixed_type = choice.packs() ? p.queue_type : FNCE_FLOAT32;
  choice.premixed_stride = round_up(p.d, 16 / element_size(choice.premixed_type));
  const int times = choice.premixes && (problem.is_union() || problem.gathers_unmixed()) ? 2 : 1;
  const PassKind loss = {.mixes_scores = choice.mixes_scores, .statistics = p.scores != 0};
  const PassKind scores = {.mixes_scores = false, .statistics = true};
  choice.loss = launch_of(*choice.family, problem, caps, loss, times);
  choice.scores = launch_of(*choice.family, problem, caps, scores, 1);
  if (converts(choice.operand)) choice.fallback = launch_of(*families().back(), problem, caps, loss, times);
  return choice;
}

int32_t table_blocks(const Problem& problem) {
  // sigma, and the lambdas in its order; without a sampled permutation there is neither.
  if (!problem.samples_permutation() || problem.k() == 0) return 0;
  return table_blocks_for(problem.k());
}

fnce_plan_info info_of(const Problem& problem, const CudaChoice& choice, const DeviceCaps& caps,
                       uint64_t workspace_bytes) {
  const MainLaunch& launch = choice.loss;
  fnce_plan_info info = problem_info(problem, FNCE_MIXING_BEFORE_PASS, workspace_bytes);
  tell_family(choice, caps, info);
  info.fallback_family = choice.may_fall_back() ? choice.fallback.family->code : 0;
  info.products = products_of(choice.operand);
  info.row_blocks = launch.row_blocks;
  info.block_rows = launch.rows;
  info.column_tiles = launch.column_tiles;
  info.tile_columns = launch.columns;
  info.tile_features = launch.features;
  info.splits = launch.splits;
  info.tasks = launch.blocks();
  info.compute_capability = caps.arch();
  info.multiprocessors = caps.sm_count;
  info.planned_multiprocessors = choice.sm_count;
  caps.name.copy(info.device_name, sizeof info.device_name - 1);
  return info;
}

}  // namespace fnce::cuda
