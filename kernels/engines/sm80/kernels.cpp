// Finds a kernel among the files of inst/.
#include "kernels/engines/sm80/kernels.h"

namespace fnce::cuda::sm80 {

template <Operand kOperand, int kD>
Kernel<MainParams> kernel_of(int tile, Variant variant);

namespace {

template <Operand kOperand>
Kernel<MainParams> kernel_of(int tile, Variant variant) {
  const int d = tiles_of(kOperand).first[tile].d;
  return d == 64    ? kernel_of<kOperand, 64>(tile, variant)
         : d == 128 ? kernel_of<kOperand, 128>(tile, variant)
         : d == 256 ? kernel_of<kOperand, 256>(tile, variant)
                    : kernel_of<kOperand, 512>(tile, variant);
}

}  // namespace

Kernel<MainParams> main_kernel(Operand operand, int tile, Variant variant) {
  switch (operand) {
    case Operand::kHalf: return kernel_of<Operand::kHalf>(tile, variant);
    case Operand::kBfloat: return kernel_of<Operand::kBfloat>(tile, variant);
    case Operand::kHalfSplit: return kernel_of<Operand::kHalfSplit>(tile, variant);
    case Operand::kHalfFast: return kernel_of<Operand::kHalfFast>(tile, variant);
    case Operand::kFloat32: break;
  }
  return {};
}

}  // namespace fnce::cuda::sm80
