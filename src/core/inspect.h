// The draws of a seed, on the host: lambda in row order and the permutation. They come from the scalar formulas of
// src/math, the norm that every backend's own form must equal bit for bit.
#pragma once
#include <cstdint>

#include "core/args.h"
#include "core/problem.h"
#include "math/philox.h"

namespace fnce {

// stream: Stream::kLambdaPos or kLambdaNeg. Throws StatusError.
void sample_lambda(const Problem& problem, const Args& args, Stream stream, float* out, int64_t count);
void sample_permutation(const Problem& problem, const Args& args, int32_t* out, int64_t count);

}  // namespace fnce
