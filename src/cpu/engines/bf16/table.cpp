// The function table of this object's bfloat16 products.
#include "core/types.h"
#include "cpu/engines/bf16/products.h"
#include "cpu/features.h"

#define FNCE_JOIN_OF(x, y) x##y
#define FNCE_JOIN(x, y) FNCE_JOIN_OF(x, y)

namespace fnce::cpu {

const TileKernels& FNCE_JOIN(tiles_, FNCE_PRODUCTS)() {
  namespace products = FNCE_ISA::FNCE_PRODUCTS;
  static constexpr TileKernels kTable = {
      FNCE_BFLOAT16,          {FNCE_ISA::kLanes, products::kWidest, products::kDimBlock, products::kColumnPadding},
      products::packed_bytes, products::pack_columns,
      products::pack_anchors, products::run_tile,
      products::enter,        products::leave};
  return kTable;
}

bool FNCE_JOIN(usable_, FNCE_PRODUCTS)() {
#if defined(FNCE_MODEL)
  return under_lid("amx");
#else
  return FNCE_JOIN(has_, FNCE_PRODUCTS)();
#endif
}

}  // namespace fnce::cpu
