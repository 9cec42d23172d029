// Kernels of bench/cuda/rate_kernels.h for the harness: launches that do nothing, so that gpu_bench can be linked and
// its launches timed. Rates of anything else mean nothing there.
#include "cuda/rate_kernels.h"

#include "hostcuda/launch.h"

namespace fnce::bench::gpu::rate {
namespace {

void launch(unsigned blocks, cudaStream_t stream) {
  hostcuda::launch({blocks, 1, 1}, 1, 0, "nothing", reinterpret_cast<fnce_stream>(stream), [] {});
}

}  // namespace

void nothing(unsigned blocks, cudaStream_t stream) { launch(blocks, stream); }
void read_rows(const void*, void*, unsigned rows, unsigned passes, cudaStream_t stream) {
  launch(rows / kRowsPerBlock * passes, stream);
}
void exponentials(unsigned blocks, float*, cudaStream_t stream) { launch(blocks, stream); }
void multiply_adds(unsigned blocks, float*, cudaStream_t stream) { launch(blocks, stream); }
void products(unsigned blocks, bool, float*, cudaStream_t stream) { launch(blocks, stream); }

}  // namespace fnce::bench::gpu::rate
