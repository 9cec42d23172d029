// What this processor and its operating system offer to the instruction sets of this library.
#pragma once

namespace fnce::cpu {

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
