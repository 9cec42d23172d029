#include "kernels/engines/sm80/instance.cuh"

namespace fnce::cuda::sm80 {
template Kernel<MainParams> kernel_of<Operand::kHalf, 512>(int, Variant);
}
