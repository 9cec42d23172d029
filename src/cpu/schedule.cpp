#include "cpu/schedule.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>

namespace fnce::cpu {
namespace {

constexpr int64_t kEnoughTasks = 8;  // per thread: more leave less than an eighth of a task to gain

}  // namespace

int64_t packing_cost(const Problem& problem, const TileKernels& tiles) {
  const bool packs_mixtures = problem.mixes_negatives() && !problem.can_mix_scores();
  return (packs_mixtures ? 100 : 10) * (tiles.product_type == FNCE_FLOAT32 ? 1 : 4);
}

Schedule::Schedule(const Tiling& tiling, int threads, int64_t packing)
    : tiling_(tiling), chunks_(static_cast<size_t>(tiling.chunks)) {
  std::iota(chunks_.begin(), chunks_.end(), int64_t{0});
  std::stable_sort(chunks_.begin(), chunks_.end(),
                   [&](int64_t a, int64_t b) { return tiling.columns_of(a) > tiling.columns_of(b); });
  if (threads == 1 || tiling.chunks == 0) return;
  int64_t best = makespan(threads, 1, packing);
  for (int parts = 2; parts <= tiling.panels(0).count() && tiling.tasks() * (parts - 1) < kEnoughTasks * threads;
       ++parts) {
    const int64_t time = makespan(threads, parts, packing);
    if (time >= best) continue;
    best = time;
    parts_ = parts;
  }
}

PassTask Schedule::task(int64_t index) const {
  // Parts and row blocks of one chunk follow one another: they share its columns in the cache.
  const int64_t part = index % parts_, block = index / parts_ % tiling_.row_blocks;
  const int64_t panels = tiling_.panels(block).count();
  return {block, chunks_[static_cast<size_t>(index / parts_ / tiling_.row_blocks)],
          static_cast<int>(part * panels / parts_), static_cast<int>((part + 1) * panels / parts_)};
}

int64_t Schedule::makespan(int threads, int parts, int64_t packing) const {
  std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> free_at;
  for (int i = 0; i < threads; ++i) free_at.push(0);
  int64_t end = 0;
  for (const int64_t chunk : chunks_)
    for (int64_t block = 0; block < tiling_.row_blocks; ++block) {
      const Panels panels = tiling_.panels(block);
      for (int64_t part = 0; part < parts; ++part) {
        const int first = static_cast<int>(part * panels.count() / parts),
                  last = static_cast<int>((part + 1) * panels.count() / parts);
        const int64_t rows = int64_t{panels.first_vector(last) - panels.first_vector(first)} * tiling_.shape.lanes;
        const int64_t done = free_at.top() + (rows > 0 ? (rows + packing) * tiling_.columns_of(chunk) : 0);
        free_at.pop();
        free_at.push(done);
        end = std::max(end, done);
      }
    }
  return end;
}

}  // namespace fnce::cpu
