// The benchmarks of the C interface share this: inputs of a shape, and a planned call of fnce_loss on them.
#pragma once

#include <benchmark/benchmark.h>
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fnce::bench {

struct Shape {
  int64_t n, k, d;
};

struct Element {
  const char* name;
  int32_t type;  // FNCE_FLOAT32 ..
  int64_t size;  // bytes
};
inline constexpr Element kElements[] = {
    {"float32", FNCE_FLOAT32, 4}, {"bfloat16", FNCE_BFLOAT16, 2}, {"float16", FNCE_FLOAT16, 2}};

// The program measures these. Without shapes it takes those of the source files.
struct Options {
  std::vector<Shape> shapes;
  std::vector<Element> elements{std::begin(kElements), std::end(kElements)};
};
// Takes --shapes=NxKxD,... and --types=NAME,... out of the arguments; a sentence if one of them is wrong, else "".
std::string take_options(int& argc, char** argv, Options& options);

// Seconds each benchmark runs at least: long enough for a stable median, short enough for the whole program to be run
// often.
constexpr double kMinSeconds = 0.1;

// Random features, and unit rows as negatives, as bytes of an element type; empty where the library does not have it.
struct Inputs {
  std::vector<std::byte> x_q, x_k;  // [N,D]
  std::vector<std::byte> queue;     // [K,D]
};

// The inputs of a shape; those asked for last are kept, as benchmarks run shape by shape.
const Inputs& inputs_of(const Shape& shape, const Element& element);

// The values in an element type, rounded by the library's own fnce_scale; empty where it does not have the type.
std::vector<std::byte> rounded(const std::vector<float>& values, const Element& element);

// Rows of uniform numbers in [-1, 1), the same for the same seed; `unit` divides each row by its norm.
std::vector<float> random_rows(int64_t rows, int64_t d, uint64_t seed, bool unit);

// The number of threads that a 0 in fnce_problem.threads stands for.
int32_t all_threads();

// 1 and, where there are more, all.
std::vector<int32_t> thread_counts();

// Ends the benchmark with the library's sentence unless the status is FNCE_OK.
bool succeeded(benchmark::State& state, fnce_status status);

enum class Gradients { kNone, kDq };

// A plan with its workspace, outputs and arguments, ready for calls of fnce_loss.
class LossCall {
 public:
  // `problem` has everything but the sizes and element types; dq is float32, as a trainer saves it.
  LossCall(fnce_problem problem, const Shape& shape, Gradients gradients, const Element& element = kElements[0]);
  ~LossCall() { fnce_plan_destroy(plan_); }
  LossCall(const LossCall&) = delete;
  LossCall& operator=(const LossCall&) = delete;

  // The status of the constructor, in which plan creation can fail.
  fnce_status status() const { return status_; }
  // One call; each draws anew, as training steps do.
  fnce_status run();

  double gemm_flops() const;
  size_t workspace_bytes() const { return workspace_bytes_; }
  const fnce_problem& problem() const { return problem_; }

 private:
  void point_scores();

  fnce_problem problem_;
  fnce_args args_{};
  fnce_plan* plan_ = nullptr;
  fnce_status status_ = FNCE_OK;
  size_t workspace_bytes_ = 0;
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte[], Free> workspace_;
  float loss_ = 0;
  std::vector<float> dq_, float_scores_;
  std::vector<int64_t> int_scores_;
};

// A preset without sizes, threads set.
fnce_problem preset_of(int32_t preset, int32_t threads);

// Registration, one function per source file.
void register_loss_benchmarks(const Options& options);
void register_draw_benchmarks();
void register_queue_benchmarks(const Options& options);
void register_thread_benchmarks();

}  // namespace fnce::bench
