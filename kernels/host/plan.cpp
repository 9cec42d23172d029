#include "kernels/host/plan.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/plan_info.h"
#include "core/status.h"
#include "core/types.h"
#include "kernels/engines/plain/kernels.h"
#include "kernels/rows/kernels.h"

namespace fnce::cuda {
namespace {

constexpr int kOldest = 75, kOldestSm80 = 80;
constexpr int64_t kMaxSplits = 65535;                   // gridDim.y
constexpr int64_t kMaxBlocks = 2147483647;              // gridDim.x
constexpr int64_t kLeastTiles = 4;                      // key tiles of a split
constexpr int64_t kMaxSplitBytes = int64_t{256} << 20;  // of O over all splits: it is read again by the last kernel
constexpr int kPlainBlocksPerSm = 4;
// The time of a block, in queries times keys: a split takes its keys and kElementsOfASplit / D more, to start and to end; a key
// takes the rows of the block and kRowsOfAKey more, to be loaded (intended; no device has told).
constexpr int64_t kElementsOfASplit = 1 << 15;
constexpr int64_t kRowsOfAKey = 32;
constexpr int64_t kMostWaves = 8;  // of blocks
// Keys of a split whose sums the matrix units hold, which cut off digits (products.cuh).
constexpr int64_t kMostKeys = 1 << 14;
// Of one of float16x3: statistics of the sm80 family count columns, twice as many with a union, in 32 bits.
constexpr int64_t kMostCounted = 1 << 29;

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

Operand operand_of(const fnce_problem& p) {
  if (p.queue_type == FNCE_FLOAT16) return Operand::kHalf;
  if (p.queue_type == FNCE_BFLOAT16) return Operand::kBfloat;
  return p.precision == FNCE_PRECISION_FAST ? Operand::kHalfFast : Operand::kHalfSplit;
}

// How a launch is cut into blocks. `time`: when the last of them ends.
struct Cut {
  int32_t splits;
  double time;
};

// The splits with which the last block ends first, when `at_once` blocks run at a time: blocks start in waves. Keys have
// `features` in the pass. Not fewer splits than `least` where that can be, and not too many sums to merge.
Cut cut_of(const Problem& problem, const MainLaunch& launch, int64_t features, int64_t at_once, int64_t least) {
  const int64_t bytes = problem.n() * problem.d() * int64_t{sizeof(float)};
  const int64_t most =
      std::max<int64_t>(1, std::min({launch.key_tiles / kLeastTiles, kMaxSplitBytes / bytes, kMaxSplits}));
  Cut best = {0, std::numeric_limits<double>::infinity()};
  for (int64_t splits = std::clamp<int64_t>(least, 1, most); splits <= most; ++splits) {
    const int64_t waves = divide_up(launch.row_blocks * splits, at_once);
    if (waves > kMostWaves && best.splits > 0) break;
    const int64_t keys = divide_up(launch.key_tiles, splits) * launch.keys + kElementsOfASplit / features;
    const double time = static_cast<double>(waves) * static_cast<double>(keys * (launch.rows + kRowsOfAKey));
    if (time < best.time) best = {static_cast<int32_t>(splits), time};
  }
  return best;
}

MainLaunch launch_of(const Problem& problem, int rows, int keys, bool two_segments) {
  MainLaunch launch = {};
  launch.rows = rows;
  launch.keys = keys;
  launch.row_blocks = divide_up(problem.n(), rows);
  launch.key_tiles = divide_up(problem.k(), keys) * (two_segments ? 2 : 1);
  return launch;
}

MainLaunch plain_launch(const Problem& problem, const DeviceCaps& caps, bool two_segments) {
  MainLaunch launch = launch_of(problem, plain::kRows, plain::kKeys, two_segments);
  launch.splits = cut_of(problem, launch, problem.d(), int64_t{caps.sm_count} * kPlainBlocksPerSm, 1).splits;
  return launch;
}

// Of the tiles that fit into the device's shared memory, the one whose blocks end first on its multiprocessors, one block on each:
// a large tile reads a key once for many rows, small ones make blocks enough for all. Largest rows first among equals.
MainLaunch sm80_launch(const Problem& problem, const DeviceCaps& caps, Operand operand, sm80::Variant variant,
                       bool two_segments) {
  const int64_t most_keys = operand == Operand::kHalfSplit ? kMostCounted : kMostKeys;
  MainLaunch best = {};
  double least_time = std::numeric_limits<double>::infinity();
  for (int index = sm80::tiles_of(operand).count - 1; index >= 0; --index) {
    if (!sm80::serves(operand, index, problem.d(), variant == sm80::Variant::kStatistics, caps.shared_bytes)) continue;
    const sm80::Tile tile = sm80::tile_of(operand, index);
    MainLaunch launch = launch_of(problem, tile.rows(), tile.keys, two_segments);
    const Cut cut = cut_of(problem, launch, tile.d, caps.sm_count, divide_up(launch.key_tiles * tile.keys, most_keys));
    if (cut.time >= least_time) continue;
    launch.variant = variant;
    launch.tile = index;
    launch.splits = cut.splits;
    best = launch;
    least_time = cut.time;
  }
  return best;
}

// Shared memory of the smallest tile with statistics, which fnce_scores always asks for.
int64_t least_shared_bytes(const Problem& problem, Operand operand) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int index = 0; index < sm80::tiles_of(operand).count; ++index)
    if (sm80::serves(operand, index, problem.d(), true, least))
      least = sm80::shared_bytes(operand, sm80::tile_of(operand, index));
  return least;
}

// Why the matrix units cannot serve, or FNCE_REASON_NONE.
FamilyReason obstacle(const Problem& problem, const DeviceCaps& caps, Operand operand) {
  if (caps.arch() < kOldestSm80) return {FNCE_REASON_COMPUTE_CAPABILITY, kOldestSm80};
  if (problem.d() > sm80::kMaxFeatures) return {FNCE_REASON_FEATURES, sm80::kMaxFeatures};
  const int64_t needed = least_shared_bytes(problem, operand);
  if (needed > caps.shared_bytes) return {FNCE_REASON_SHARED_MEMORY, needed};
  return {FNCE_REASON_NONE, 0};
}

// The family's part of fnce_plan_info.
void tell_family(int32_t family, const FamilyReason& reason, const DeviceCaps& caps, fnce_plan_info& info) {
  info.family = family;
  info.family_reason = reason.code;
  info.family_limit = reason.limit;
  info.shared_memory_bytes = caps.shared_bytes;
  const bool stands_back = reason.code != FNCE_REASON_NONE && reason.code != FNCE_REASON_FORCED;
  info.better_family = stands_back ? FNCE_FAMILY_SM80 : 0;
}

void check_device(const Problem& problem, const DeviceCaps& caps) {
  if (caps.arch() < kOldest)
    throw StatusError(FNCE_UNSUPPORTED, "problem.device_index is " + to_text(int64_t{problem.raw().device_index}) +
                                            " (" + caps.name + ", compute capability " + caps.cc() +
                                            "); this version supports 7.5 and newer");
  if (problem.n() + kMaxTableBlocks > kMaxBlocks)
    unsupported("problem.n", to_text(problem.n()), "up to " + to_text(kMaxBlocks - kMaxTableBlocks) + " on a GPU");
}

void choose_family(const Problem& problem, const DeviceCaps& caps, Forced forced, CudaChoice& choice) {
  const Operand operand = operand_of(problem.raw());
  const FamilyReason found = obstacle(problem, caps, operand);
  const bool serves = found.code == FNCE_REASON_NONE;
  if (forced == Forced::kSm80 && !serves) {
    fnce_plan_info info = {};
    tell_family(FNCE_FAMILY_PLAIN, found, caps, info);
    throw StatusError(FNCE_UNSUPPORTED, "FNCE_BACKEND in the environment is sm80: " + family_reason_in_words(info));
  }
  const bool packs = serves && forced != Forced::kPlain;
  choice.family = packs ? Family::kSm80 : Family::kPlain;
  choice.operand = packs ? operand : Operand::kFloat32;
  choice.reason = forced == Forced::kNothing ? found : FamilyReason{FNCE_REASON_FORCED, 0};
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

Forced forced_family(const char* name) {
  if (name == nullptr || *name == '\0') return Forced::kNothing;
  if (std::strcmp(name, "plain") == 0) return Forced::kPlain;
  if (std::strcmp(name, "sm80") == 0) return Forced::kSm80;
  invalid("FNCE_BACKEND in the environment", name, "sm80, plain");
}

int planned_multiprocessors(const char* text, int all) {
  if (text == nullptr || *text == '\0') return all;
  constexpr long kMost = 1'000'000;
  char* end = nullptr;
  const long count = std::strtol(text, &end, 10);
  if (*end != '\0' || count < 1 || count > kMost)
    invalid("FNCE_MULTIPROCESSORS in the environment", text, "1 to " + to_text(int64_t{kMost}));
  return static_cast<int>(count);
}

CudaChoice choose(const Problem& problem, const DeviceCaps& caps, Forced forced) {
  check_device(problem, caps);
  const fnce_problem& p = problem.raw();
  CudaChoice choice = {};
  choice.sm_count = caps.sm_count;
  choose_family(problem, caps, forced, choice);
  const bool mixes = problem.mixes_negatives() && p.k > 0;
  choice.mixes_scores = mixes && problem.can_mix_scores();
  choice.premixes = mixes && !choice.mixes_scores;
  // Premixed rows are rounded to the queue's type where that is what is multiplied.
  choice.premixed_type = choice.packs() ? p.queue_type : FNCE_FLOAT32;
  choice.premixed_stride = round_up(p.d, 16 / element_size(choice.premixed_type));
  const bool two_segments = choice.premixes && (problem.is_union() || problem.gathers_unmixed());
  if (!choice.packs()) {
    choice.d_padded = p.d;
    choice.loss = plain_launch(problem, caps, two_segments);
    choice.scores = plain_launch(problem, caps, false);
    return choice;
  }
  using sm80::Variant;
  const Variant variant = p.scores != 0         ? Variant::kStatistics
                          : choice.mixes_scores ? Variant::kMixed
                                                : Variant::kPlain;
  choice.loss = sm80_launch(problem, caps, choice.operand, variant, two_segments);
  choice.scores = sm80_launch(problem, caps, choice.operand, Variant::kStatistics, false);
  choice.d_padded = sm80::tiles_of(choice.operand).first[choice.loss.tile].d;
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
  tell_family(choice.packs() ? FNCE_FAMILY_SM80 : FNCE_FAMILY_PLAIN, choice.reason, caps, info);
  info.fallback_family = choice.may_fall_back() ? FNCE_FAMILY_PLAIN : 0;
  info.products = products_of(choice.operand);
  info.row_blocks = launch.row_blocks;
  info.block_rows = launch.rows;
  info.column_tiles = launch.key_tiles;
  info.tile_columns = launch.keys;
  info.tile_features = choice.d_padded;
  info.splits = launch.splits;
  info.tasks = launch.blocks();
  info.compute_capability = caps.arch();
  info.multiprocessors = caps.sm_count;
  info.planned_multiprocessors = choice.sm_count;
  caps.name.copy(info.device_name, sizeof info.device_name - 1);
  return info;
}

}  // namespace fnce::cuda
