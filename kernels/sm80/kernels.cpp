// Finds a kernel among the files of inst/.
#include "sm80/kernels.h"

namespace fnce::cuda::sm80 {

template <Operand kOperand, int kD>
Kernel<MainParams> kernel_of(int tile, Variant variant);

Kernel<MainParams> main_kernel(Operand operand, int tile, Variant variant) {
  const int d = tiles_of(operand).first[tile].d;
  switch (operand) {
    case Operand::kHalf:
      return d == 64    ? kernel_of<Operand::kHalf, 64>(tile, variant)
             : d == 128 ? kernel_of<Operand::kHalf, 128>(tile, variant)
             : d == 256 ? kernel_of<Operand::kHalf, 256>(tile, variant)
                        : kernel_of<Operand::kHalf, 512>(tile, variant);
    case Operand::kBfloat:
      return d == 64    ? kernel_of<Operand::kBfloat, 64>(tile, variant)
             : d == 128 ? kernel_of<Operand::kBfloat, 128>(tile, variant)
             : d == 256 ? kernel_of<Operand::kBfloat, 256>(tile, variant)
                        : kernel_of<Operand::kBfloat, 512>(tile, variant);
    case Operand::kHalfSplit:
      return d == 64    ? kernel_of<Operand::kHalfSplit, 64>(tile, variant)
             : d == 128 ? kernel_of<Operand::kHalfSplit, 128>(tile, variant)
                        : kernel_of<Operand::kHalfSplit, 256>(tile, variant);
    case Operand::kHalfFast:
      return d == 64    ? kernel_of<Operand::kHalfFast, 64>(tile, variant)
             : d == 128 ? kernel_of<Operand::kHalfFast, 128>(tile, variant)
                        : kernel_of<Operand::kHalfFast, 256>(tile, variant);
    case Operand::kFloat32: break;
  }
  return {};
}

}  // namespace fnce::cuda::sm80
