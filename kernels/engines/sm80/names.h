// The names of this family's kernels, which messages, the budget of registers and the checks of the machine code share.
#pragma once
#include <string>

#include "kernels/engines/sm80/kernels.h"

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

// Such as infonce_main_float16_128x64x64_mixed: operand, rows, columns, features, variant.
inline std::string name_of(const Instance& instance) {
  const Tile t = tile_of(instance.operand, instance.tile);
  return std::string("infonce_main_") + name_of(instance.operand) + "_" + std::to_string(t.rows()) + "x" +
         std::to_string(t.columns) + "x" + std::to_string(t.d) + "_" + name_of(instance.variant);
}

// The same kernel as demanglers write its symbol, without fnce::cuda and the parameters:
// sm80::infonce_main<(Operand)1, 0, (sm80::Variant)2>.
inline std::string symbol_of(const Instance& instance) {
  return "sm80::infonce_main<(Operand)" + std::to_string(static_cast<int>(instance.operand)) + ", " +
         std::to_string(instance.tile) + ", (sm80::Variant)" + std::to_string(static_cast<int>(instance.variant)) + ">";
}

}  // namespace fnce::cuda::sm80
