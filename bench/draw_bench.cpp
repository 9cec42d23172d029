// The time of the draws, on one thread through the inspection calls: lambda by granularity and shape of Beta, and the
// permutation.
#include <string>

#include "workload.h"

namespace fnce::bench {
namespace {

constexpr Shape kShape{256, 65536, 128};

struct Draw {
  const char* name;
  int32_t lambda;
  int64_t count;
};
constexpr Draw kDraws[] = {{"call", FNCE_LAMBDA_CALL, 1},
                           {"row", FNCE_LAMBDA_ROW, kShape.k},
                           {"element", FNCE_LAMBDA_ELEMENT, kShape.k* kShape.d}};

void sample_lambda(benchmark::State& state, const Draw& draw, float alpha) {
  fnce_problem problem = preset_of(FNCE_PRESET_FT, 1);
  problem.n = kShape.n, problem.k = kShape.k, problem.d = kShape.d;
  problem.lambda_neg = draw.lambda;
  fnce_args args;
  if (!succeeded(state, fnce_args_init(&args, sizeof args))) return;
  args.alpha_neg = alpha;
  std::vector<float> out(static_cast<size_t>(draw.count));
  for (auto _ : state) {
    ++args.seed;
    if (!succeeded(state, fnce_sample_lambda_neg(&problem, &args, out.data(), draw.count))) return;
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * draw.count);
}

void permutation(benchmark::State& state) {
  fnce_problem problem = preset_of(FNCE_PRESET_FT, 1);
  problem.n = 1, problem.d = 1, problem.k = state.range(0);
  fnce_args args;
  if (!succeeded(state, fnce_args_init(&args, sizeof args))) return;
  std::vector<int32_t> out(static_cast<size_t>(problem.k));
  for (auto _ : state) {
    ++args.seed;
    if (!succeeded(state, fnce_permutation(&problem, &args, out.data(), problem.k))) return;
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * problem.k);
}

}  // namespace

void register_draw_benchmarks() {
  for (const Draw& draw : kDraws) {
    for (const float alpha : {0.2f, 1.6f}) {
      const std::string name =
          "sample_lambda_neg/" + std::string(draw.name) + (alpha < 1 ? "/alpha:0.2" : "/alpha:1.6");
      benchmark::RegisterBenchmark(name.c_str(), [&draw, alpha](benchmark::State& state) {
        sample_lambda(state, draw, alpha);
      })->MinTime(kMinSeconds);
    }
  }
  // A power of two needs no cycle walking; one more than that needs the most.
  benchmark::RegisterBenchmark("permutation", permutation)
      ->ArgName("k")
      ->Arg(4096)
      ->Arg(65536)
      ->Arg(65537)
      ->MinTime(kMinSeconds);
}

}  // namespace fnce::bench
