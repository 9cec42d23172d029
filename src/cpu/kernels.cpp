// The choice of the instruction set, made once.
#include "cpu/kernels.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/features.h"

namespace fnce::cpu {
namespace {

// The instruction sets of this library that this processor has, worst first.
std::vector<Kernels> find_usable() {
#if defined(FNCE_ISA_NEON)
  std::vector<Kernels> usable = {kernels_neon()};
#else
  std::vector<Kernels> usable = {kernels_baseline()};
#endif
#if defined(FNCE_ISA_AVX2)
  if (has_avx2()) usable.push_back(kernels_avx2());
#endif
#if defined(FNCE_ISA_AVX512)
  if (!has_avx512()) return usable;
  usable.push_back(kernels_avx512());
  [[maybe_unused]] const auto add_products = [&](const char* name, const TileKernels& tiles) {
    Kernels with = kernels_avx512();
    with.name = name;
    with.bfloat16 = &tiles;
    usable.push_back(with);
  };
#if defined(FNCE_ISA_AVX512_BF16)
  if (usable_avx512_bf16()) add_products("avx512_bf16", tiles_avx512_bf16());
#endif
#if defined(FNCE_ISA_AMX)
  if (usable_amx()) add_products("amx", tiles_amx());
#endif
#endif
  return usable;
}

struct Choice {
  Choice() : usable(find_usable()), chosen(&usable.back()), refused(std::getenv("FNCE_CPU_ISA")) {
    for (const Kernels& candidate : usable) {
      names += (names.empty() ? "" : ", ") + std::string(candidate.name);
      if (!refused || std::strcmp(candidate.name, refused) != 0) continue;
      chosen = &candidate;
      forced = true;
      refused = nullptr;
    }
  }

  const std::vector<Kernels> usable;
  const Kernels* chosen;
  bool forced = false;
  const char* refused;
  std::string names;
};

const Choice& choice() {
  // Never destroyed: threads of the pool may outlive static objects.
  static const Choice* const made = new Choice;
  return *made;
}

}  // namespace

const Kernels& kernels() { return *choice().chosen; }
const char* usable_isas() { return choice().names.c_str(); }
bool forced_isa() { return choice().forced; }
const char* refused_isa() { return choice().refused; }

}  // namespace fnce::cpu
