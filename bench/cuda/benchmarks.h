// The benchmarks of gpu_bench, one function per source file.
#pragma once
#include <istream>

#include "cuda/measure.h"

namespace fnce::bench::gpu {

// rate/NAME: hbm_read and l2_read in bytes/s; ex2, fma, mma_f16, mma_bf16 in items/s (the label says of what);
// launch_stream, launch_graph and launch_one as times.
void register_rates(Session& session);

// PART/WAY/STATE/PRESET/TYPE/n:N/k:K/d:D for every line "N K D TYPE PRESET" of `lines` (TYPE float32, float32-fast,
// float16 or bfloat16; PRESET moco, ft or ft-elementwise). Throws std::runtime_error that quotes a line that is none.
//   PART   step: loss and dq; prep, partial, finish: fnce_prep, fnce_partial and fnce_finish alone
//   WAY    graph or stream
//   STATE  cold: every step has another queue, all of them far larger than L2; hot: the same one again and again
void register_cells(Session& session, std::istream& lines);

}  // namespace fnce::bench::gpu
