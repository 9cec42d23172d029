// The benchmark program of the C interface: fnce_loss by shape and structure, draws, queue, threads.
//
// Counters: GEMM/s is the two matrix products of a step alone, 4*N*K*D operations (the loss without gradients: one product,
// 2*N*K*D), over the time of the whole call; bytes/s the arrays that the call must read and write; workspace in bytes.
#include <cstdio>
#include <string>

#include "workload.h"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("library", fnce_build_info());
  benchmark::AddCustomContext("threads", std::to_string(fnce::bench::all_threads()));
  fnce::bench::register_loss_benchmarks();
  fnce::bench::register_draw_benchmarks();
  fnce::bench::register_queue_benchmarks();
  fnce::bench::register_thread_benchmarks();
  if (benchmark::RunSpecifiedBenchmarks() == 0) {
    std::fputs("no benchmark matches the filter\n", stderr);
    return 1;
  }
  benchmark::Shutdown();
}
