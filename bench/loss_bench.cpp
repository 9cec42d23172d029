// fnce_loss by shape, element type, structure of the problem, gradients, score statistics and threads.
#include <string>

#include "workload.h"

namespace fnce::bench {
namespace {

struct Variant {
  const char* name;
  int32_t preset;
  Gradients gradients;
  int32_t lambda = -1;  // granularity of both mixings where not the preset's
  int32_t columns = -1;
  int32_t scores = FNCE_SCORES_NONE;
  bool every_shape = false;
};

constexpr Variant kVariants[] = {
    {.name = "moco", .preset = FNCE_PRESET_MOCO, .gradients = Gradients::kDq, .every_shape = true},
    {.name = "moco-loss-only", .preset = FNCE_PRESET_MOCO, .gradients = Gradients::kNone},
    {.name = "ft", .preset = FNCE_PRESET_FT, .gradients = Gradients::kDq, .every_shape = true},
    {.name = "ft-loss-only", .preset = FNCE_PRESET_FT, .gradients = Gradients::kNone},
    {.name = "ft-scores",
     .preset = FNCE_PRESET_FT,
     .gradients = Gradients::kDq,
     .scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED},
    {.name = "ft-union", .preset = FNCE_PRESET_FT, .gradients = Gradients::kDq, .columns = FNCE_COLUMNS_UNION},
    {.name = "ft-per-row", .preset = FNCE_PRESET_FT, .gradients = Gradients::kDq, .lambda = FNCE_LAMBDA_ROW},
    {.name = "ft-per-dimension",
     .preset = FNCE_PRESET_FT,
     .gradients = Gradients::kDq,
     .lambda = FNCE_LAMBDA_DIMENSION},
    {.name = "ft-elementwise", .preset = FNCE_PRESET_FT_ELEMENTWISE, .gradients = Gradients::kDq, .every_shape = true},
};

struct ShapeChoice {
  Shape shape;
  bool every_variant;
};
constexpr ShapeChoice kShapes[] = {{{256, 65536, 128}, true},
                                   {{32, 65536, 128}, false},
                                   {{1024, 65536, 128}, false},
                                   {{256, 4096, 128}, true},
                                   {{256, 65536, 256}, false}};

void loss(benchmark::State& state, const Variant& variant, const Shape& shape, const Element& element,
          int32_t threads) {
  fnce_problem problem = preset_of(variant.preset, threads);
  if (variant.lambda >= 0) problem.lambda_pos = problem.lambda_neg = variant.lambda;
  if (variant.columns >= 0) problem.columns = variant.columns;
  problem.scores = variant.scores;
  LossCall call(problem, shape, variant.gradients, element);
  if (!succeeded(state, call.status()) || !succeeded(state, call.run())) return;
  for (auto _ : state) {
    if (!succeeded(state, call.run())) return;
  }
  const int64_t read = (2 * shape.n + shape.k) * shape.d,
                written = variant.gradients == Gradients::kDq ? shape.n * shape.d : 0;
  state.SetBytesProcessed(state.iterations() * (read * element.size + written * int64_t{sizeof(float)}));
  state.counters["GEMM/s"] = benchmark::Counter(call.gemm_flops(), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["workspace"] = benchmark::Counter(static_cast<double>(call.workspace_bytes()),
                                                   benchmark::Counter::kDefaults, benchmark::Counter::kIs1024);
}

void register_one(const Variant& variant, const Shape& shape, const Element& element, int32_t threads) {
  const std::string name = "loss/" + std::string(variant.name) + "/" + element.name + "/n:" + std::to_string(shape.n) +
                           "/k:" + std::to_string(shape.k) + "/d:" + std::to_string(shape.d) +
                           "/t:" + std::to_string(threads);
  benchmark::RegisterBenchmark(
      name.c_str(),
      [&variant, shape, element, threads](benchmark::State& state) { loss(state, variant, shape, element, threads); })
      ->UseRealTime()
      ->MinTime(kMinSeconds)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

void register_loss_benchmarks(const Options& options) {
  std::vector<ShapeChoice> choices(std::begin(kShapes), std::end(kShapes));
  if (!options.shapes.empty()) {
    choices.clear();
    for (const Shape& shape : options.shapes) choices.push_back({shape, true});
  }
  for (const auto& [shape, every_variant] : choices) {
    for (const Element& element : options.elements) {
      for (const Variant& variant : kVariants) {
        // Structures that the presets do not have are timed in float32 at two shapes, and where a shape was asked for.
        if (!variant.every_shape && !(every_variant && element.type == FNCE_FLOAT32)) continue;
        for (const int32_t threads : thread_counts()) register_one(variant, shape, element, threads);
      }
    }
  }
}

}  // namespace fnce::bench
