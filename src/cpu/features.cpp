#include "cpu/features.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fnce::cpu {
namespace {

// Worst first. Where a processor has one, it has those before it, the bfloat16 products apart.
constexpr const char* kBuilt[] = {
#if defined(FNCE_ISA_NEON)
    "neon",
#else
    "baseline",
#endif
#if defined(FNCE_ISA_AVX2)
    "avx2",
#endif
#if defined(FNCE_ISA_AVX512)
    "avx512",
#endif
#if defined(FNCE_ISA_AVX512_BF16)
    "avx512_bf16",
#endif
#if defined(FNCE_ISA_AMX)
    "amx",
#endif
};
constexpr int kCount = sizeof kBuilt / sizeof *kBuilt;

// kCount: no such name.
int place_of(const char* name) {
  int place = 0;
  while (place < kCount && std::strcmp(kBuilt[place], name) != 0) ++place;
  return place;
}

const char* lid() {
  static const char* const value = std::getenv("FNCE_CPU_MAX_ISA");
  return value;
}

}  // namespace

std::string built_isas() {
  std::string names = kBuilt[0];
  for (int place = 1; place < kCount; ++place) names += std::string(", ") + kBuilt[place];
  return names;
}

bool under_lid(const char* isa) { return !lid() || place_of(isa) <= place_of(lid()); }

const char* refused_lid() { return lid() && place_of(lid()) == kCount ? lid() : nullptr; }

#if defined(__x86_64__)
namespace {

enum Register { kEax, kEbx, kEcx, kEdx };

// A bit of CPUID leaf 7; false where the processor has no such subleaf.
bool leaf7_bit(unsigned subleaf, Register which, int bit) {
  unsigned r[4] = {};
  if (!__get_cpuid_count(7, 0, &r[kEax], &r[kEbx], &r[kEcx], &r[kEdx]) || subleaf > r[kEax]) return false;
  __cpuid_count(7, subleaf, r[kEax], r[kEbx], r[kEcx], r[kEdx]);
  return (r[which] >> bit & 1) != 0;
}

// Linux gives a process the state of the tiles on request only.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool has_avx2() {
  __builtin_cpu_init();
  return under_lid("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("aes") &&
         __builtin_cpu_supports("pclmul");
}

bool has_avx512() {
  return under_lid("avx512") && has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() { return under_lid("avx512_bf16") && leaf7_bit(1, kEax, 5); }

bool has_amx() { return under_lid("amx") && leaf7_bit(0, kEdx, 24) && leaf7_bit(0, kEdx, 22) && may_use_tiles(); }

#endif
}  // namespace fnce::cpu
