// The sm80 family for the host: matrix units by mma.sync. Grid of its kernels: x = row blocks, y = splits.
#pragma once
#include "kernels/contract/family.h"
#include "kernels/engines/sm80/shared_plan.h"

namespace fnce::cuda::sm80 {

// A main kernel; `tile` is an index of tiles_of(operand).
struct KernelKey {
  Operand operand;
  int tile;
  Variant variant;
};

// The number by which a launch knows it.
constexpr int32_t id_of(const KernelKey& key) {
  return (static_cast<int32_t>(key.operand) << 16) | (key.tile << 8) | static_cast<int32_t>(key.variant);
}
constexpr KernelKey key_of(int32_t id) {
  return {static_cast<Operand>(id >> 16), (id >> 8) & 0xff, static_cast<Variant>(id & 0xff)};
}

Kernel<MainParams> main_kernel(Operand operand, int tile, Variant variant);

const Family& family();

}  // namespace fnce::cuda::sm80
