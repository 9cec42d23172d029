// The plain family for the host: any D, any architecture. Grid of its kernel: x = blocks of kRows queries, y = splits.
#pragma once
#include "kernels/contract/family.h"

namespace fnce::cuda::plain {

constexpr int kRows = 16;     // queries per block
constexpr int kColumns = 64;  // negatives per column tile, a multiple of 16 (a cycle of C)

Kernel<MainParams> main_kernel();

const Family& family();

}  // namespace fnce::cuda::plain
