// The CPU backend: the default where there is no GPU.
#pragma once
#include "core/backend.h"

namespace fnce {

const Backend& cpu_backend();

}  // namespace fnce
