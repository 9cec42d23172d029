// The benchmark program of the C interface on a GPU: what the device can do, or the library's step by cell.
//
//   gpu_bench                  rates of the device
//   gpu_bench --cells=FILE     every "N K D TYPE PRESET" of a file, or of the input for "-"; gpu_cells.py prints such
//                              lines
//
// Beside that, Google Benchmark's options; --benchmark_repetitions=7, --benchmark_min_time=0.01 and aggregates only
// where they say nothing else. Times are those between CUDA events, per step; benchmarks.h explains the names.
// Exit code: 0, 1 (wrong use, nothing to run, or the device failed), 77 (no device; 1 where FLASHNCE_REQUIRE_GPU=1).
#include <flashnce/flashnce.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

#include "cuda/benchmarks.h"

namespace fnce::bench::gpu {
namespace {

// These stand in front of the given options, so that those can say otherwise.
constexpr const char* kDefaults[] = {"--benchmark_repetitions=7", "--benchmark_min_time=0.01",
                                     "--benchmark_report_aggregates_only=true"};
constexpr const char* kCellsOption = "--cells=";
constexpr const char* kUsage =
    "usage: gpu_bench [--cells=FILE] [options of Google Benchmark]\n\n"
    "Without --cells: rates of the device. FILE, or - for the input, has a cell a line: N K D TYPE PRESET.\n\n";

int no_device_code() {
  const char* required = std::getenv("FLASHNCE_REQUIRE_GPU");
  return required != nullptr && std::strcmp(required, "1") == 0 ? 1 : 77;
}

void describe_device() {
  cudaDeviceProp properties;
  FNCE_BENCH_CHECK(cudaGetDeviceProperties(&properties, 0));
  benchmark::AddCustomContext("device", properties.name);
  benchmark::AddCustomContext("sm_count", std::to_string(attribute(cudaDevAttrMultiProcessorCount)));
  benchmark::AddCustomContext("l2_bytes", std::to_string(attribute(cudaDevAttrL2CacheSize)));
  benchmark::AddCustomContext("library", fnce_build_info());
}

void register_cells_of(Session& session, const std::string& path) {
  if (path == "-") return register_cells(session, std::cin);
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  register_cells(session, file);
}

// Benchmarks hold memory of the device: it goes before what the session holds.
struct ClearBenchmarks {
  ~ClearBenchmarks() { benchmark::ClearRegisteredBenchmarks(); }
};

int run(std::vector<char*> arguments, const std::string& cells) {
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
    return std::puts("SKIP: there is no CUDA device"), no_device_code();
  describe_device();
  Session session;
  const ClearBenchmarks clear;
  if (cells.empty())
    register_rates(session);
  else
    register_cells_of(session, cells);
  if (benchmark::RunSpecifiedBenchmarks() == 0) return std::fputs("no benchmark matches the filter\n", stderr), 1;
  benchmark::Shutdown();
  return session.device_failed ? 1 : 0;
}

}  // namespace
}  // namespace fnce::bench::gpu

int main(int argc, char** argv) {
  using namespace fnce::bench::gpu;
  std::vector<char*> arguments = {argv[0]};
  for (const char* argument : kDefaults) arguments.push_back(const_cast<char*>(argument));
  std::string cells;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], kCellsOption, std::strlen(kCellsOption)) == 0)
      cells = argv[i] + std::strlen(kCellsOption);
    else
      arguments.push_back(argv[i]);
    if (std::strcmp(argv[i], "--help") == 0) std::fputs(kUsage, stdout);
  }
  try {
    return run(std::move(arguments), cells);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return 1;
  }
}
