// The function table of this object's instruction set.
#include "core/types.h"
#include "cpu/engines/isa/tile32.h"
#include "cpu/simd/simd.h"

#define FNCE_TEXT_OF(x) #x
#define FNCE_TEXT(x) FNCE_TEXT_OF(x)
#define FNCE_JOIN_OF(x, y) x##y
#define FNCE_JOIN(x, y) FNCE_JOIN_OF(x, y)

namespace fnce::cpu {

const Kernels& FNCE_JOIN(kernels_, FNCE_ISA)() {
  static constexpr Kernels kTable = {
      FNCE_TEXT(FNCE_ISA),
      FNCE_ISA::sigma_table,
      FNCE_ISA::lambda_rows,
      FNCE_ISA::lambda_dimensions,
      FNCE_ISA::lambda_elements,
      FNCE_ISA::prepare_row,
      FNCE_ISA::row_gradient,
      FNCE_ISA::merge_panel,
      FNCE_ISA::norm,
      FNCE_ISA::scale_row,
      FNCE_ISA::normalize_row,
      FNCE_ISA::feature_gradient,
      FNCE_ISA::rounded_dot,
      {FNCE_FLOAT32,
       {FNCE_ISA::kLanes, 3, static_cast<int>(FNCE_ISA::kDimBlock), static_cast<int>(FNCE_ISA::kColumnPadding)},
       FNCE_ISA::packed_bytes,
       FNCE_ISA::pack_columns,
       FNCE_ISA::pack_anchors,
       FNCE_ISA::run_tile,
       [] {},
       [] {}},
      nullptr};
  return kTable;
}

}  // namespace fnce::cpu
