// What the benchmarks of the C interface share: inputs of a shape, and a planned call of fnce_loss on them.
#pragma once

#include <benchmark/benchmark.h>
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fnce::bench {

struct Shape {
  int64_t n, k, d;
};

// Seconds each benchmark runs at least: long enough for a stable median, short enough for the whole program to be run often.
constexpr double kMinSeconds = 0.1;

// Random features, and unit rows as negatives.
struct Inputs {
  std::vector<float> x_q, x_k;  // [N,D]
  std::vector<float> queue;     // [K,D]
};

// The inputs of a shape; the last shape asked for is kept, as benchmarks run shape by shape.
const Inputs& inputs_of(const Shape& shape);

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
  // `problem` has everything but the sizes.
  LossCall(fnce_problem problem, const Shape& shape, Gradients gradients);
  ~LossCall() { fnce_plan_destroy(plan_); }
  LossCall(const LossCall&) = delete;
  LossCall& operator=(const LossCall&) = delete;

  // Of the constructor: plan creation can fail.
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
void register_loss_benchmarks();
void register_draw_benchmarks();
void register_queue_benchmarks();
void register_thread_benchmarks();

}  // namespace fnce::bench
