// The plain family serves every problem, with its one kernel.
#include "kernels/engines/plain/kernels.h"

namespace fnce::cuda::plain {
namespace {

constexpr int kBlocksPerSm = 4;
constexpr int64_t kMostColumns = int64_t{1} << 62;  // any number

std::vector<MainKernel> kernels(const Problem& problem, const DeviceCaps&, const PassKind&) {
  return {{.id = 0,
           .rows = kRows,
           .columns = kColumns,
           .features = problem.d(),
           .blocks_per_sm = kBlocksPerSm,
           .most_columns = kMostColumns}};
}

}  // namespace

const Family& family() {
  static constexpr Family family = {.code = FNCE_FAMILY_PLAIN,
                                    .operand = [](const Problem&) { return Operand::kFloat32; },
                                    .obstacle =
                                        [](const Problem&, const DeviceCaps&) {
                                          return FamilyReason{FNCE_REASON_NONE, 0};
                                        },
                                    .kernels = kernels,
                                    .kernel = [](int32_t) { return main_kernel(); }};
  return family;
}

}  // namespace fnce::cuda::plain
