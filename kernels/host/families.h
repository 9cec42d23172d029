// All families of main kernels, best first.
#pragma once
#include <span>

#include "kernels/contract/family.h"

namespace fnce::cuda {

// A plan takes the first without an obstacle. The last one has none for any problem, multiplies in float32, and so
// takes over where float16 cannot hold a float32 queue.
std::span<const Family* const> families();

// What FNCE_BACKEND in the environment asks for. Null or "" is nothing: null. Throws FNCE_INVALID_ARGUMENT for a name
// that is none.
const Family* forced_family(const char* name);

}  // namespace fnce::cuda
