// Which tasks the threads of a call take, and in which order. The tiling alone decides what is summed in which order: a
// task may hold any panels of a row block against any chunk, because no row's result depends on the others. So this may
// follow the number of threads and what things cost, and no bit does.
#pragma once
#include <cstdint>
#include <vector>

#include "core/problem.h"
#include "cpu/kernels.h"
#include "cpu/tiling.h"

namespace fnce::cpu {

// Some panels of a row block against a chunk; the panels may be none.
struct PassTask {
  int64_t block, chunk;
  int first_panel, end_panel;
};

// What a column costs before its first product, in rows that it is multiplied with: packed as it is, or made from two
// rows first. The numbers follow from times of 96 and 192 rows on AVX2, AVX-512 and AMX; bfloat16 products are that
// much faster. A wrong guess costs time alone.
int64_t packing_cost(const Problem& problem, const TileKernels& tiles);

class Schedule {
 public:
  // `packing`: what a column costs a task before its first product, in rows that it could be multiplied with instead.
  Schedule(const Tiling& tiling, int threads, int64_t packing);

  int64_t tasks() const { return tiling_.tasks() * parts_; }
  // Task 0 is the first to be taken.
  PassTask task(int64_t index) const;
  // Tasks that share a row block and a chunk.
  int parts() const { return parts_; }

 private:
  // The time, in rows x columns, until `threads` threads have done all tasks, each taking the next one when it is free.
  int64_t makespan(int threads, int parts, int64_t packing) const;

  const Tiling& tiling_;
  std::vector<int64_t> chunks_;  // long ones first: a short one last leaves the least to wait for
  int parts_ = 1;
};

}  // namespace fnce::cpu
