// CUDA memory for the tests, by functions found at run time (neither headers nor libraries of a toolkit are needed):
// the driver's, of a GPU; or those inside a library whose CUDA backend runs on the CPU.
#pragma once

#include <string>

#include "support/device.h"

namespace support {

// The first GPU, or null and the reason why there is none.
const Device* cuda_device(std::string& reason);

// Memory of the host that passes for a GPU's; null unless the library has such a backend.
const Device* emulated_cuda_device();

}  // namespace support
