// The sm80 family for the host: matrix units by mma.sync. Grid of its kernels: x = row blocks, y = splits.
#pragma once
#include "kernels/contract/family.h"
#include "kernels/engines/sm80/shared_plan.h"

namespace fnce::cuda::sm80 {

// A main kernel; `tile` is an index of tiles_of(operand).
struct Instance {
  Operand operand;
  int tile;
  Variant variant;
};

// The number by which a launch knows it.
constexpr int32_t id_of(const Instance& instance) {
  return (static_cast<int32_t>(instance.operand) << 16) | (instance.tile << 8) | static_cast<int32_t>(instance.variant);
}
constexpr Instance instance_of(int32_t id) {
  return {static_cast<Operand>(id >> 16), (id >> 8) & 0xff, static_cast<Variant>(id & 0xff)};
}

Kernel<MainParams> main_kernel(Operand operand, int tile, Variant variant);

const Family& family();

}  // namespace fnce::cuda::sm80
