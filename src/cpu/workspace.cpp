#include "cpu/workspace.h"

#include <initializer_list>
#include <type_traits>

#include "core/types.h"

namespace fnce::cpu {

Workspace::Workspace(void* base, const Problem& problem, const Tiling& tiling, const TileKernels& tiles, int threads)
    : tiling_(tiling), packed_bytes_(static_cast<uint64_t>(tiles.packed_bytes(tiling.d_padded))) {
  const fnce_problem& p = problem.raw();
  const auto n = static_cast<uint64_t>(p.n), k = static_cast<uint64_t>(p.k), d = static_cast<uint64_t>(p.d);
  uint64_t padded = 0;
  for (int64_t b = 0; b < tiling.row_blocks; ++b) padded += static_cast<uint64_t>(tiling.padded_rows(b));

  Carver task(nullptr), thread(nullptr);
  carve_task(task);
  carve_thread(thread);
  task_bytes_ = task.used();
  thread_bytes_ = thread.used();

  Carver carver(base);
  anchors = carver.take<float>(n * d);
  pos = carver.take<float>(n);
  unmixed_pos = carver.take<float>(n);
  lambda_pos_dims =
      problem.samples_lambda_pos() && p.lambda_pos == FNCE_LAMBDA_DIMENSION ? carver.take<float>(d) : nullptr;
  batch = p.batch_columns > 0
              ? carver.take<unsigned char>(static_cast<uint64_t>(p.batch_columns) * d * element_size(p.queue_type))
              : nullptr;
  threads_ = carver.take<unsigned char>(thread_bytes_ * static_cast<uint64_t>(threads));
  rows_bytes_ = carver.used();

  partial = carver.take<unsigned char>(partial_layout(p.n, p.d, p.scores | FNCE_SCORES_MIXED).bytes);
  loss_rows = carver.take<float>(n);
  dtemperature_rows = carver.take<float>(n);
  packed_anchors = carver.take<float>(padded * static_cast<uint64_t>(tiling.d_padded));
  for (int set = 0; set < 2; ++set) {
    upper[set] = carver.take<float>(padded);
    lower[set] = carver.take<float>(padded);
    row_limits[set] = problem.has_margin() ? carver.take<float>(padded) : nullptr;
  }
  row_numbers = problem.has_mask() ? carver.take<int32_t>(padded) : nullptr;
  sorted_ids = problem.has_ids() ? carver.take<int64_t>(n) : nullptr;
  sorted_count = problem.has_ids() ? carver.take<int64_t>(1) : nullptr;
  order = problem.samples_permutation() ? carver.take<int32_t>(k) : nullptr;
  seen = problem.mixes_negatives() && !problem.samples_permutation() ? carver.take<uint32_t>((k + 31) / 32) : nullptr;
  lambda_neg_dims =
      problem.samples_lambda_neg() && p.lambda_neg == FNCE_LAMBDA_DIMENSION ? carver.take<float>(d) : nullptr;
  lambda_neg_rows = problem.samples_lambda_neg() && p.lambda_neg == FNCE_LAMBDA_ROW ? carver.take<float>(k) : nullptr;
  tasks_ = carver.take<unsigned char>(task_bytes_ * static_cast<uint64_t>(tiling.tasks()));
  bytes_ = carver.used();
}

TaskState Workspace::task(int64_t row_block, int64_t chunk) const {
  Carver carver(tasks_ + task_bytes_ * static_cast<uint64_t>(row_block * tiling_.chunks + chunk));
  return carve_task(carver);
}

ThreadScratch Workspace::thread(int worker) const {
  Carver carver(threads_ + thread_bytes_ * static_cast<uint64_t>(worker));
  return carve_thread(carver);
}

TaskState Workspace::carve_task(Carver& carver) const {
  const auto padded = static_cast<uint64_t>(tiling_.max_padded_rows());
  TaskState s = {};
  s.o = carver.take<float>(padded * static_cast<uint64_t>(tiling_.d_padded));
  s.m = carver.take<float>(padded);
  s.l = carver.take<float>(padded);
  s.columns = carver.take<int32_t>(padded);
  s.not_finite = carver.take<int32_t>(padded);
  for (StatsLanes& stats : s.stats)
    for_each_array<int32_t>([&](auto array) {
      auto& lanes = stats.*array;
      lanes = carver.take<std::remove_reference_t<decltype(*lanes)>>(padded);
    });
  return s;
}

ThreadScratch Workspace::carve_thread(Carver& carver) const {
  const auto d_padded = static_cast<uint64_t>(tiling_.d_padded), lanes = static_cast<uint64_t>(tiling_.shape.lanes);
  const uint64_t panel = kColumnTile * 3 * lanes;
  ThreadScratch s = {};
  s.packed = carver.take<unsigned char>(packed_bytes_);
  s.weights = carver.take<float>(panel);
  s.raw_scores = carver.take<float>(panel);
  s.pack_row = carver.take<float>(3 * d_padded);
  s.lambda = carver.take<float>(kColumnTile);
  s.rows = carver.take<int32_t>(kColumnTile);
  s.partners = carver.take<int32_t>(kColumnTile);
  s.next_rows = carver.take<int32_t>(2 * kColumnTile);
  s.numbers = carver.take<int32_t>(kColumnTile);
  s.partner_numbers = carver.take<int32_t>(kColumnTile);
  s.probe = carver.take<int32_t>(2 * kColumnTile);
  for (float** array : {&s.bias, &s.mixed_bias, &s.limits, &s.spoiled, &s.mixed_spoiled})
    *array = carver.take<float>(kColumnTile);
  s.blank = carver.take<uint8_t>(kColumnTile);
  s.across = carver.take<float>(kColumnTile * (1 + lanes));
  for (float** array : {&s.row.raw_q, &s.row.raw_k, &s.row.q, &s.row.k, &s.row.q_mixed, &s.row.k_mixed, &s.lambda_row})
    *array = carver.take<float>(d_padded);
  s.gradient = carver.take<float>(2 * d_padded);
  s.factors = carver.take<float>(static_cast<uint64_t>(tiling_.chunks) * 3 * lanes);
  return s;
}

}  // namespace fnce::cpu
