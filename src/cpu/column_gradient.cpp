#include "cpu/column_gradient.h"

#include <algorithm>
#include <cstring>

#include "core/types.h"
#include "cpu/pass.h"
#include "cpu/pool.h"
#include "math/lse.h"
#include "math/row.h"

namespace fnce::cpu {
namespace {

constexpr float kInfinity = __builtin_huge_valf(), kNan = __builtin_nanf("");

}  // namespace

// The pieces of run()'s memory; with base = nullptr it only counts.
struct ColumnGradient::Memory {
  Memory(void* base, const ColumnGradient& plan) {
    const auto n = static_cast<uint64_t>(plan.problem_.k()), c = static_cast<uint64_t>(plan.problem_.n()),
               d = static_cast<uint64_t>(plan.problem_.d());
    Carver carver(base);
    bias = carver.take<float>(n);
    limits = carver.take<float>(n);
    sums = carver.take<float>(c * d);
    anchors = plan.tiles_.product_type == FNCE_FLOAT32
                  ? nullptr
                  : carver.take<unsigned char>(n * d * static_cast<uint64_t>(element_size(plan.tiles_.product_type)));
    pass = base ? static_cast<unsigned char*>(base) + carver.used() : nullptr;
    pass_begin = carver.used();
  }
  float *bias, *limits;  // [N]
  float* sums;           // [C,D]
  void* anchors;         // [N,D] in the type of the products; null where that is float32
  void* pass;            // the workspace of the pass
  uint64_t pass_begin;
};

ColumnGradient::ColumnGradient(const Problem& problem, const Kernels& kernels, int threads)
    : problem_(places_changed(problem, kernels.tiles_for(problem.raw().queue_type).product_type)),
      kernels_(kernels),
      tiles_(kernels.tiles_for(problem_.raw().queue_type)),
      threads_(threads),
      tiling_(problem_.n(), problem_.k(), 0, problem_.d(), tiles_.shape),
      schedule_(tiling_, threads_, packing_cost(problem_, tiles_)),
      bytes_(Memory(nullptr, *this).pass_begin + Workspace(nullptr, problem_, tiling_, tiles_, threads_).bytes()) {}

void ColumnGradient::run(const CpuCall& forward, const fnce_anchors& anchors, const ColumnsCall& columns,
                         void* base) const {
  const Memory memory(base, *this);
  const Workspace workspace(memory.pass, problem_, tiling_, tiles_, threads_);
  const CpuCall call = {problem_, forward.args, kernels_, tiles_, tiling_, schedule_, workspace, threads_};
  const fnce_problem& p = forward.problem.raw();
  const fnce_args& a = forward.args.raw();
  const auto* anchor_rows = static_cast<const float*>(anchors.anchor);
  parallel_rows(threads_, p.n, [&](int64_t i, int) {
    if (forward.problem.has_margin()) memory.limits[i] = anchors.pos[i] + a.margin;
    if (memory.anchors)
      kernels_.scale_row(anchor_rows + i * p.d, FNCE_FLOAT32, 1.0f, p.d,
                         element_at(memory.anchors, i * p.d, tiles_.product_type), tiles_.product_type);
  });
  parallel_rows(threads_, p.batch_columns, [&](int64_t j, int) {
    kernels_.scale_row(element_at(forward.workspace.batch, j * p.d, p.queue_type), p.queue_type, 1.0f, p.d,
                       workspace.anchors + j * p.d, FNCE_FLOAT32);
    std::memset(memory.sums + j * p.d, 0, static_cast<size_t>(p.d) * sizeof(float));
  });

  const PartialView partial(workspace.partial, partial_layout(p.batch_columns, p.d, FNCE_SCORES_NONE));
  PassRequest request = {};
  request.queue = {.rows = memory.anchors ? memory.anchors : anchors.anchor,
                   .type = tiles_.product_type,
                   .ids = a.query_ids,
                   .bias = memory.bias,
                   .limits = forward.problem.has_margin() ? memory.limits : nullptr,
                   .unnamed_is_out = false};
  request.row_ids = a.batch_ids;
  request.sums = true;
  for (const float sign : {1.0f, -1.0f}) {
    bool any = false;
    for (int64_t i = 0; i < p.n; ++i) {
      const float weight = upstream_factor(a.weight ? a.weight[i] : 1.0f, p.reduction == FNCE_REDUCTION_MEAN, p.n);
      memory.bias[i] = upstream_bias(columns.upstream[columns.per_row ? i : 0], weight, columns.log_sum_exp[i], sign);
      any = any || memory.bias[i] != -kInfinity;
    }
    if (!any) continue;
    run_pass(call, request, {workspace.anchors, nullptr, nullptr, {}}, partial);
    parallel_rows(threads_, p.batch_columns, [&](int64_t j, int) {
      const float bias = a.batch_bias ? a.batch_bias[j] : 0.0f;
      const bool counts =
          partial.l[j] != 0.0f && bias != -kInfinity && !(a.batch_ids && a.batch_ids[j] == FNCE_NO_COLUMN);
      if (!counts) return;
      const double factor = column_factor(partial.m[j], bias, sign, a.temperature);
      for (int64_t c = j * p.d; c < (j + 1) * p.d; ++c)
        memory.sums[c] += static_cast<float>(factor * static_cast<double>(partial.o[c]));
      // The vector code may have lost a NaN on the way.
      const float check = nan_unless_finite(partial.m[j]) + nan_unless_finite(partial.l[j]);
      float row = 0.0f;
      for (int64_t c = 0; c < p.d; ++c) row += nan_unless_finite(workspace.anchors[j * p.d + c]);
      if (check + row == 0.0f) return;
      for (int64_t c = j * p.d; c < (j + 1) * p.d; ++c) memory.sums[c] = kNan;
    });
  }

  const RowInput features = features_alone(forward);
  parallel_rows(threads_, p.batch_columns, [&](int64_t j, int worker) {
    const ThreadScratch scratch = workspace.thread(worker);
    // A column to which no row sends anything has no gradient, whatever it holds.
    float* sums = memory.sums + j * p.d;
    void* out = element_at(columns.dx_c, j * p.d, p.gradient_type);
    if (std::all_of(sums, sums + p.d, [](float x) { return x == 0.0f; })) {
      std::memset(out, 0, static_cast<size_t>(p.d * element_size(p.gradient_type)));
      return;
    }
    const float norm = kernels_.normalize_row(features, element_at(a.x_c, j * p.d, p.feature_type), scratch.gradient);
    kernels_.feature_gradient(features, norm, scratch.gradient, sums, out, p.gradient_type);
  });
}

}  // namespace fnce::cpu
