#include "kernels/host/workspace.h"

#include <algorithm>

#include "core/layout.h"
#include "core/types.h"

namespace fnce::cuda {
namespace {

// The arrays of SplitPartials are those of a partial of [splits][N] rows.
fnce_layout split_partials_layout(const Problem& problem, const MainLaunch& launch, int32_t scores) {
  return partial_layout(launch.splits * problem.n(), problem.d(), scores);
}

}  // namespace

Workspace::Workspace(void* base, const Problem& problem, const CudaChoice& choice) {
  const fnce_problem& p = problem.raw();
  const auto n = static_cast<uint64_t>(p.n), k = static_cast<uint64_t>(p.k), d = static_cast<uint64_t>(p.d);
  const MainLaunch &loss = choice.loss, &scores = choice.scores;
  Carver carver(base);
  anchor = carver.take<float>(n * d);
  exact_pos = carver.take<float>(n);
  packed = {};
  packed.d_padded = static_cast<int32_t>(loss.features);
  if (choice.packs()) {
    packed.rows = std::max(loss.padded_rows(), scores.padded_rows());
    const auto rows = static_cast<uint64_t>(packed.rows);
    packed.values = carver.take<uint16_t>(static_cast<uint64_t>(planes_of(choice.operand)) * rows *
                                          static_cast<uint64_t>(loss.features));
    packed.scale = carver.take<float>(rows);
  }
  for (int set = 0; set < 2; ++set) {
    const bool gathers = set == 0 || problem.gathers_unmixed();  // fnce_scores has the first of any plan
    upper[set] = gathers ? carver.take<float>(n) : nullptr;
    lower[set] = gathers ? carver.take<float>(n) : nullptr;
    limits[set] = gathers && problem.has_margin() ? carver.take<float>(n) : nullptr;
  }
  const auto tables = static_cast<uint64_t>(table_blocks(problem));
  order = tables > 0 ? carver.take<int32_t>(k) : nullptr;
  lambda = choice.mixes_scores ? carver.take<float>(p.lambda_neg == FNCE_LAMBDA_ROW ? k : 1) : nullptr;
  lambda_extent = choice.mixes_scores ? carver.take<float>(tables) : nullptr;
  row_scratch = p.d > kSharedFeatures ? carver.take<float>(n * kRowArrays * d) : nullptr;
  premixed = choice.premixes ? carver.take<unsigned char>(k * static_cast<uint64_t>(choice.premixed_stride *
                                                                                    element_size(choice.premixed_type)))
                             : nullptr;
  partner_ids = choice.premixes && problem.has_ids() ? carver.take<int64_t>(k) : nullptr;
  const auto batch_bytes = static_cast<uint64_t>(p.batch_columns * p.d * element_size(p.queue_type));
  batch = p.batch_columns > 0 ? carver.take<unsigned char>(batch_bytes) : nullptr;
  const bool given = choice.premixes && !problem.samples_permutation();
  const uint64_t words = (k + 31) / 32;
  seen = given ? carver.take<uint32_t>(words + 1) : nullptr;
  invalid = seen ? seen + words : nullptr;
  queue_extent = choice.may_fall_back()
                     ? carver.take<float>(static_cast<uint64_t>(std::max(loss.blocks(), scores.blocks())))
                     : nullptr;
  loss_rows = carver.take<float>(n);
  dtemperature_row_sums = carver.take<float>(n);
  ticket = carver.take<uint32_t>(1);
  rows_bytes_ = carver.used();
  split_partials_ =
      carver.take<unsigned char>(std::max(split_partials_layout(problem, loss, p.scores).bytes,
                                          split_partials_layout(problem, scores, FNCE_SCORES_MIXED).bytes));
  bytes_ = carver.used();
}

PartialView Workspace::split_partials(const Problem& problem, const MainLaunch& launch, int32_t scores) const {
  return PartialView(split_partials_, split_partials_layout(problem, launch, scores));
}

}  // namespace fnce::cuda
