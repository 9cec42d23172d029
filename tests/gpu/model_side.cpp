// Runs the check kernels on the harness of tests/hostcuda.
#define FNCE_CONFORMANCE_SIDE on_model
#include <cstdio>

#include "gpu/checks.cuh"
#include "hostcuda/launch.h"

extern "C" int fnce_conformance_model(const fnce::conformance::Job* job, uint32_t* results, char* message,
                                      size_t size) noexcept {
  using namespace fnce::conformance;
  Params params = job->params;
  params.x = job->x.data();
  params.y = job->y.data();
  params.out = results;
  int code = 0;
  on_model::dispatch(*job, [&](auto kernel, const char* name, on_model::Blocks blocks, unsigned threads, int shared) {
    code = hostcuda::launch({blocks.x, blocks.y, 1}, threads, static_cast<size_t>(shared), name, nullptr,
                            [&] { kernel(params); });
    if (code != 0) std::snprintf(message, size, "%s ended with %d: %s", name, code, hostcuda::last_failure().c_str());
  });
  return code;
}
