// The kernels of one operand and one width D, for the files of inst/: each holds one line, so that they compile side by side.
#pragma once
#include <string>

#include "kernels/engines/sm80/kernels.h"
#include "kernels/engines/sm80/main.cuh"

namespace fnce::cuda::sm80 {

inline const char* name_of(Operand operand) {
  switch (operand) {
    case Operand::kHalf: return "float16";
    case Operand::kBfloat: return "bfloat16";
    case Operand::kHalfSplit: return "float16x3";
    case Operand::kHalfFast: return "float16_fast";
    case Operand::kFloat32: break;
  }
  return "float32";
}

inline const char* name_of(Variant variant) {
  return variant == Variant::kPlain ? "plain" : variant == Variant::kMixed ? "mixed" : "statistics";
}

template <Operand kOperand, int kIndex, Variant kVariant>
Kernel<MainParams> instance() {
  constexpr Tile t = tile_of(kOperand, kIndex);
  static const std::string name = std::string("infonce_main_") + name_of(kOperand) + "_" + std::to_string(t.rows()) +
                                  "x" + std::to_string(t.columns) + "x" + std::to_string(t.d) + "_" + name_of(kVariant);
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
