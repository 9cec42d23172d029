// The kernels of one operand and one width D, for the files of inst/: each holds one line, so that they compile side by
// side.
#pragma once
#include "kernels/engines/sm80/main.cuh"
#include "kernels/engines/sm80/names.h"

namespace fnce::cuda::sm80 {

template <Operand kOperand, int kIndex, Variant kVariant>
Kernel<MainParams> instance() {
  constexpr Tile t = tile_of(kOperand, kIndex);
  static const std::string name = name_of({kOperand, kIndex, kVariant});
  return {infonce_main<kOperand, kIndex, kVariant>, name.c_str(), t.threads(), shared_bytes(kOperand, t)};
}

template <Operand kOperand, int kIndex>
Kernel<MainParams> instance(Variant variant) {
  if constexpr (has_statistics(kOperand, kIndex))
    if (variant == Variant::kStatistics) return instance<kOperand, kIndex, Variant::kStatistics>();
  if (variant == Variant::kStatistics) return {};
  return variant == Variant::kMixed ? instance<kOperand, kIndex, Variant::kMixed>()
                                    : instance<kOperand, kIndex, Variant::kPlain>();
}

// The kernel of a tile whose width is kD, among the tiles from kFirst on. Null if there is none.
template <Operand kOperand, int kD, int kFirst>
Kernel<MainParams> find_kernel(int tile, Variant variant) {
  if constexpr (kFirst == tiles_of(kOperand).count) {
    return {};
  } else {
    if constexpr (tile_of(kOperand, kFirst).d == kD)
      if (tile == kFirst) return instance<kOperand, kFirst>(variant);
    return find_kernel<kOperand, kD, kFirst + 1>(tile, variant);
  }
}

template <Operand kOperand, int kD>
Kernel<MainParams> kernel_of(int tile, Variant variant) {
  return find_kernel<kOperand, kD, 0>(tile, variant);
}

}  // namespace fnce::cuda::sm80
