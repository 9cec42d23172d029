#include "kernels/host/families.h"

#include <string>

#include "core/plan_info.h"
#include "core/status.h"
#include "kernels/engines/plain/kernels.h"
#include "kernels/engines/sm80/kernels.h"

namespace fnce::cuda {

std::span<const Family* const> families() {
  static const Family* const list[] = {
      &sm80::family(),
      &plain::family(),
  };
  return list;
}

const Family* forced_family(const char* name) {
  if (name == nullptr || *name == '\0') return nullptr;
  std::string allowed;
  for (const Family* family : families()) {
    const std::string known = family_name(family->code);
    if (known == name) return family;
    allowed += (allowed.empty() ? "" : ", ") + known;
  }
  invalid("FNCE_BACKEND in the environment", name, allowed);
}

}  // namespace fnce::cuda
