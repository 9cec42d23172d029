// What the sm80 family serves, and with which of its tiles.
#include <limits>

#include "kernels/engines/sm80/kernels.h"

namespace fnce::cuda::sm80 {
namespace {

constexpr int kOldest = 80;
// Columns of a split whose sums the matrix units hold, which cut off digits (products.cuh).
constexpr int64_t kMostColumns = 1 << 14;
// Columns of a split of float16x3, whose sums are rounded: statistics count columns, twice as many with a union, in 32
// bits.
constexpr int64_t kMostCounted = 1 << 29;

Operand operand_of(const Problem& problem) {
  const fnce_problem& p = problem.raw();
  if (p.queue_type == FNCE_FLOAT16) return Operand::kHalf;
  if (p.queue_type == FNCE_BFLOAT16) return Operand::kBfloat;
  // The gradient of batch columns needs log-sum-exps of the scores that it computes itself, in float32's accuracy.
  const bool fast = p.precision == FNCE_PRECISION_FAST && p.batch_columns == 0;
  return fast ? Operand::kHalfFast : Operand::kHalfSplit;
}

// Shared memory of the smallest tile with statistics, which fnce_scores always asks for.
int64_t least_shared_bytes(const Problem& problem, Operand operand) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int index = 0; index < tiles_of(operand).count; ++index)
    if (serves(operand, index, problem.d(), true, least)) least = shared_bytes(operand, tile_of(operand, index));
  return least;
}

FamilyReason obstacle(const Problem& problem, const DeviceCaps& caps) {
  if (caps.arch() < kOldest) return {FNCE_REASON_COMPUTE_CAPABILITY, kOldest};
  if (problem.has_mask()) return {FNCE_REASON_MASKS, 0};
  if (problem.d() > kMaxFeatures) return {FNCE_REASON_FEATURES, kMaxFeatures};
  const int64_t needed = least_shared_bytes(problem, operand_of(problem));
  if (needed > caps.shared_bytes) return {FNCE_REASON_SHARED_MEMORY, needed};
  return {FNCE_REASON_NONE, 0};
}

// The tiles that fit into the device's shared memory, largest rows first: a large tile reads a column once for many
// rows, small ones make blocks enough for all multiprocessors. One block runs on each.
std::vector<MainKernel> kernels(const Problem& problem, const DeviceCaps& caps, const PassKind& kind) {
  const Operand operand = operand_of(problem);
  const Variant variant = kind.statistics     ? Variant::kStatistics
                          : kind.mixes_scores ? Variant::kMixed
                                              : Variant::kPlain;
  std::vector<MainKernel> found;
  for (int index = tiles_of(operand).count - 1; index >= 0; --index) {
    if (!serves(operand, index, problem.d(), kind.statistics, caps.shared_bytes)) continue;
    const Tile tile = tile_of(operand, index);
    found.push_back({.id = id_of({operand, index, variant}),
                     .rows = tile.rows(),
                     .columns = tile.columns,
                     .features = tile.d,
                     .blocks_per_sm = 1,
                     .most_columns = operand == Operand::kHalfSplit ? kMostCounted : kMostColumns});
  }
  return found;
}

Kernel<MainParams> kernel(int32_t id) {
  const Instance instance = instance_of(id);
  return main_kernel(instance.operand, instance.tile, instance.variant);
}

}  // namespace

const Family& family() {
  static constexpr Family family = {
      .code = FNCE_FAMILY_SM80, .operand = operand_of, .obstacle = obstacle, .kernels = kernels, .kernel = kernel};
  return family;
}

}  // namespace fnce::cuda::sm80
