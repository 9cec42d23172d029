// The benchmark program of the C interface: fnce_loss by shape, structure and element type, draws, queue, threads.
//
// Beside Google Benchmark's options it takes --shapes=NxKxD,... (of fnce_loss) and --types=float32,bfloat16,float16.
// Counters: GEMM/s is the two matrix products of a step alone, 4*N*K*D operations (the loss without gradients: one
// product, 2*N*K*D), over the time of the whole call; bytes/s the arrays that the call must read and write; workspace
// in bytes.
#include <cstdio>
#include <string>

#include "workload.h"

int main(int argc, char** argv) {
  fnce::bench::Options options;
  if (const std::string wrong = fnce::bench::take_options(argc, argv, options); !wrong.empty()) {
    std::fprintf(stderr, "%s\n", wrong.c_str());
    return 1;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("library", fnce_build_info());
  benchmark::AddCustomContext("threads", std::to_string(fnce::bench::all_threads()));
  fnce::bench::register_loss_benchmarks(options);
  fnce::bench::register_draw_benchmarks();
  fnce::bench::register_queue_benchmarks(options);
  fnce::bench::register_thread_benchmarks();
  if (benchmark::RunSpecifiedBenchmarks() == 0) {
    std::fputs("no benchmark matches the filter\n", stderr);
    return 1;
  }
  benchmark::Shutdown();
}
