// Prints the main kernels of the sm80 family as JSON: their names, what a launch of each needs, and how many matrix
// instructions their code must have, by the arithmetic of tile.h. Compiled as C++, like the kernels of tests/hostcuda.
#include <cstdio>

#include "kernels/engines/sm80/names.h"

namespace {

using namespace fnce::cuda;
using namespace fnce::cuda::sm80;

void print(Operand operand, int index, Variant variant, bool first) {
  const Tile t = tile_of(operand, index);
  const int planes = planes_of(operand), products = planes == 2 ? 3 : 1, groups = t.columns_per_warp() / 16;
  // Each 16x16 product is two instructions. With anchors in shared memory the scores' loop over features turns once for
  // each 64 of them; with anchors in registers it is unrolled, as the sums' loop over features always is.
  constexpr int kTurn = 64;
  const int sums = t.features_per_warp() / 16, scores = t.divides_features() ? sums : kTurn / 16;
  const int anchors = t.divides_features() ? 0 : scores * planes * t.mi;
  const Instance instance = {operand, index, variant};
  std::printf("%s{\"name\": \"%s\", \"symbol\": \"%s\", ", first ? "[" : ",\n ", name_of(instance).c_str(),
              symbol_of(instance).c_str());
  std::printf("\"threads\": %d, \"shared_bytes\": %lld, \"bfloat16\": %d, ", t.threads(),
              static_cast<long long>(shared_bytes(operand, t)), operand == Operand::kBfloat);
  std::printf("\"mma\": %d, \"ldmatrix\": %d, \"ldmatrix_trans\": %d, ", 2 * t.mi * groups * (scores + sums) * products,
              anchors + scores * planes * groups, groups * sums * planes);
  // The loop over column tiles has these: the tile has arrived; it is converted; partial scores are there.
  std::printf("\"loop_barriers\": %d}", 1 + converts(operand) + t.divides_features());
}

}  // namespace

int main() {
  bool first = true;
  for (const Operand operand : {Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast})
    for (int index = 0; index < tiles_of(operand).count; ++index)
      for (const Variant variant : {Variant::kPlain, Variant::kMixed, Variant::kStatistics}) {
        if (variant == Variant::kStatistics && !has_statistics(operand, index)) continue;
        print(operand, index, variant, first);
        first = false;
      }
  std::printf("]\n");
}
