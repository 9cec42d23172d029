// The two matrix products of a panel in bfloat16, by vdpbf16ps (AVX512_BF16) or by AMX's tdpbf16ps:
//   multiply_scores   S[column][query] = z . a
//   multiply_sums     O[feature][query] += z^T P
// and the packing of pairs of columns that the sums want.
#pragma once
#include "cpu/engines/bf16/tile16.h"
#include "cpu/pass/softmax.h"
#include "cpu/simd/prefetch.h"

#if defined(FNCE_AMX)
#include "cpu/engines/bf16/products_amx.h"
#else
#include "cpu/engines/bf16/products_dot.h"
#endif
