// The backends of this build, best first.
#pragma once
#include <span>

#include "core/backend.h"

namespace fnce {

std::span<const Backend* const> backends();

}  // namespace fnce
