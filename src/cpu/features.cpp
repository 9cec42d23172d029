#include "cpu/features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace fnce::cpu {
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
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() { return leaf7_bit(1, kEax, 5); }

bool has_amx() { return leaf7_bit(0, kEdx, 24) && leaf7_bit(0, kEdx, 22) && may_use_tiles(); }

}  // namespace fnce::cpu
#endif
