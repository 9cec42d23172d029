#include "kernels/host/plan.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <sstream>

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

// Why the matrix units cannot serve, or "".
std::string obstacle(const Problem& problem, const DeviceCaps& caps, Operand operand) {
  if (caps.arch() < kOldestSm80) return "the sm80 family needs compute capability 8.0";
  if (problem.d() > sm80::kMaxFeatures)
    return "the sm80 family goes up to " + to_text(sm80::kMaxFeatures) + " features";
  const int64_t needed = least_shared_bytes(problem, operand);
  if (needed > caps.shared_bytes)
    return "a block of this device has " + to_text(caps.shared_bytes) +
           " bytes of shared memory, the tiles of the sm80 family need " + to_text(needed);
  return "";
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
  const std::string reason = forced == Forced::kPlain ? "FNCE_BACKEND says so" : obstacle(problem, caps, operand);
  if (reason.empty()) {
    choice.family = Family::kSm80;
    choice.operand = operand;
    return;
  }
  if (forced == Forced::kSm80)
    throw StatusError(FNCE_UNSUPPORTED, "FNCE_BACKEND in the environment is sm80: " + reason);
  choice.family = Family::kPlain;
  choice.operand = Operand::kFloat32;
  choice.why_plain = reason;
}

const char* mixing_in_words(const Problem& problem) {
  if (!problem.mixes_negatives()) return "negatives as they are, in the order of the queue";
  if (problem.can_mix_scores())
    return "negatives mixed as scores (lambda per call or row and a sampled permutation: partners share a tile, rows "
           "are "
           "read once)";
  if (problem.raw().renormalize_neg)
    return "negatives mixed once, before the pass (renormalised rows cannot be mixed as scores)";
  if (!problem.samples_permutation())
    return "negatives mixed once, before the pass (a given permutation has partners anywhere)";
  return "negatives mixed once, before the pass (lambda per dimension or element cannot be mixed as scores)";
}

// Each name follows ", ": none of them is found inside another one.
const char* products_in_words(Operand operand) {
  switch (operand) {
    case Operand::kFloat32: return "float32 products";
    case Operand::kHalf: return "float16 products";
    case Operand::kBfloat: return "bfloat16 products";
    case Operand::kHalfSplit: return "float16x3 products (a float32 queue, split in two)";
    case Operand::kHalfFast: return "float16-fast products (a float32 queue, rounded)";
  }
  return "";
}

const char* plural(int64_t count) { return count == 1 ? "" : "s"; }

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

std::string describe(const Problem& problem, const CudaChoice& choice, const DeviceCaps& caps,
                     uint64_t workspace_bytes) {
  const fnce_problem& p = problem.raw();
  const MainLaunch& t = choice.loss;
  std::ostringstream text;
  text << "cuda backend, ";
  if (choice.packs())
    text << "sm80 family (mma.sync)";
  else
    text << "plain family (" << choice.why_plain << ")";
  text << " on device " << p.device_index << " (" << caps.name << ", compute capability " << caps.cc() << ", "
       << caps.sm_count << " SM" << plural(caps.sm_count) << "); " << p.n << " queries x " << p.k << " negatives x "
       << p.d << " features; features in " << type_name(p.feature_type) << ", queue in " << type_name(p.queue_type)
       << ", gradients in " << type_name(p.gradient_type) << ", " << products_in_words(choice.operand) << "; "
       << mixing_in_words(problem) << (problem.is_union() ? ", raw negatives beside them from the same pass" : "")
       << "; " << t.row_blocks << " row block" << plural(t.row_blocks) << " of " << t.rows << " queries x " << t.splits
       << " split" << plural(t.splits);
  text << " = " << t.blocks() << " block" << plural(t.blocks()) << ", tiles of " << t.keys << " negatives";
  if (choice.sm_count != caps.sm_count)
    text << ", as for " << choice.sm_count << " SM" << plural(choice.sm_count) << " (FNCE_MULTIPROCESSORS says so)";
  text << "; workspace " << workspace_bytes << " bytes";
  return text.str();
}

}  // namespace fnce::cuda
