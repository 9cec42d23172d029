// kernels/pass/atoms.cuh for the harness.
#pragma once
#include "hostcuda/atoms_model.h"
#include "kernels/contract/platform.cuh"

namespace fnce::cuda {

using hostcuda::exp2_approx;

}  // namespace fnce::cuda
