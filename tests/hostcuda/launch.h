// Runs the source of a CUDA kernel on the CPU: a fiber per CUDA thread, whole blocks spread over worker threads.
// Mistakes that a GPU would answer with wrong numbers now and then (a barrier that some threads miss, a collective that
// not all lanes reach, a copy outside shared memory) end the launch with a message; ThreadSanitizer sees a race
// wherever CUDA promises no order, AddressSanitizer the accesses outside shared memory. README.md says what is modelled
// and what is not.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace hostcuda {

struct Grid3 {
  unsigned x = 1, y = 1, z = 1;
};

// Runs `body` once per thread of the grid, on the current device of include/cuda_runtime_api.h, and returns when all
// have ended, or records it where the stream is being captured. `body` is called concurrently. Returns a cudaError_t:
// 0, what CUDA would refuse a launch with, or cudaErrorLaunchFailure after a fault in the kernel, which last_failure()
// then describes.
int launch(Grid3 grid, unsigned threads, size_t shared_bytes, const char* name, fnce_stream stream,
           std::function<void()> body);

// What loading a kernel would answer: a cudaError_t. There is nothing to load, but a capture that it would spoil is
// spoilt.
int load();

// The message of the latest failed launch of the calling OS thread: the kernel, the thread and what it did. Empty
// before.
std::string last_failure();

// Which thread runs next when one has to wait. Blocks follow the same order where there is a choice.
//   kForward, kReverse  round robin
//   kRandom             round robin in an order that is drawn anew for every round
//   kWarp               one warp runs until all its threads wait, then another one: warps drift as far apart as they
//                       can, which exposes missing barriers without a sanitizer
enum class Schedule { kForward, kReverse, kRandom, kWarp };
constexpr Schedule kSchedules[] = {Schedule::kForward, Schedule::kReverse, Schedule::kRandom, Schedule::kWarp};
const char* name_of(Schedule schedule);

// Start values come from the environment: FNCE_HOSTCUDA_SCHEDULE=forward|reverse|random|warp, FNCE_HOSTCUDA_SEED,
// FNCE_HOSTCUDA_WORKERS.
struct Options {
  Schedule schedule = Schedule::kForward;
  uint64_t seed = 1;
  unsigned workers = 1;  // OS threads that run the blocks of a launch, the caller's included
  bool quiet = false;    // failures are not printed to stderr
};
Options options();
void set_options(const Options& options);

}  // namespace hostcuda
