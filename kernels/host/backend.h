// The CUDA backend: fnce::Backend for NVIDIA GPUs.
#pragma once
#include "core/backend.h"

namespace fnce {

const Backend& cuda_backend();

}  // namespace fnce
