// The choice of the instruction set, made once.
#include "cpu/kernels.h"

#include <cstdlib>
#include <cstring>

namespace fnce::cpu {
namespace {

#if defined(FNCE_ISA_AVX2) || defined(FNCE_ISA_AVX512)
// x86-64-v3 with AES and PCLMUL, as the objects are compiled. Processors with these have the rest of it.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}
#endif

struct Candidate {
  const Kernels& (*get)();
  bool usable;
};

const Kernels& choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  const Candidate candidates[] = {
#if defined(FNCE_ISA_AVX512)
    {kernels_avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                         __builtin_cpu_supports("avx512vl") && has_avx2()},
#endif
#if defined(FNCE_ISA_AVX2)
    {kernels_avx2, has_avx2()},
#endif
    {kernels_baseline, true}
  };
  const char* forced = std::getenv("FNCE_CPU_ISA");
  if (forced)
    for (const Candidate& candidate : candidates)
      if (candidate.usable && std::strcmp(candidate.get().name, forced) == 0) return candidate.get();
  for (const Candidate& candidate : candidates)
    if (candidate.usable) return candidate.get();
  return kernels_baseline();
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

const char* refused_isa() {
  static const char* const refused = [] {
    const char* forced = std::getenv("FNCE_CPU_ISA");
    return forced && std::strcmp(forced, kernels().name) != 0 ? forced : nullptr;
  }();
  return refused;
}

}  // namespace fnce::cpu
