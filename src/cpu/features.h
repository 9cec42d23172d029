// What this processor and its operating system offer to the instruction sets of this library. FNCE_CPU_MAX_ISA in the
// environment puts a lid on it: the processor then looks like one that has nothing beyond the instruction set of that
// name. Tests see lesser processors that way.
#pragma once

#include <string>

namespace fnce::cpu {

// Names of the instruction sets that this library is built for, worst first: "baseline, avx2".
std::string built_isas();
// True if the lid leaves an instruction set of that list to the processor.
bool under_lid(const char* isa);
// The value of FNCE_CPU_MAX_ISA if it is none of that list, and so no lid; else null.
const char* refused_lid();

#if defined(__x86_64__)
// x86-64-v3 with AES and PCLMUL, as the objects are compiled. Processors with these have the rest of it.
bool has_avx2();
// x86-64-v4 beyond has_avx2.
bool has_avx512();
bool has_avx512_bf16();
// Tiles and their bfloat16 products, and the kernel's permission to use them, which this asks for.
bool has_amx();
#endif

}  // namespace fnce::cpu
