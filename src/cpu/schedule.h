// Which tasks the threads of a call take, and in which order. The tiling alone decides what is summed in which order: a
// task may hold any panels of a row block against any chunk, because no row's result depends on the others. So this may
// follow the number of threads and what things cost, and no bit does.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/tiling.h"

namespace fnce::cpu {

// Some panels of a row block against a chunk; the panels may be none.
struct PassTask {
  int64_t block, chunk;
  int first_panel, end_panel;
};

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
