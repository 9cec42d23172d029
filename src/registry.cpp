// The one place that names the backends.
#include "registry.h"

#include "cpu/backend.h"
#if defined(FNCE_WITH_CUDA)
#include "kernels/host/backend.h"
#endif

namespace fnce {

std::span<const Backend* const> backends() {
  static const Backend* const all[] = {
#if defined(FNCE_WITH_CUDA)
    &cuda_backend(),
#endif
    &cpu_backend()
  };
  return all;
}

}  // namespace fnce
