// The CPU backend's threads. Tasks of a call are fixed by its sizes alone; who runs a task never shows in a result.
#pragma once
#include <cstdint>
#include <type_traits>

namespace fnce::cpu {

// Runs body(context, task, worker) for every task in 0..tasks-1 on the calling thread and up to threads - 1 others;
// worker is in 0..threads-1 and tells apart who runs at the same time. If another call has the threads, the calling
// thread does all of it. Returns when all tasks are done. The body must not throw.
using TaskBody = void (*)(void* context, int64_t task, int worker);
void run_tasks(int threads, int64_t tasks, TaskBody body, void* context);

template <class Body>
void parallel_for(int threads, int64_t tasks, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  run_tasks(
      threads, tasks, [](void* context, int64_t task, int worker) { (*static_cast<Plain*>(context))(task, worker); },
      &body);
}

// body(i, worker) for every row i of `rows`, some rows a task: a row alone is too little to hand out.
template <class Body>
void parallel_rows(int threads, int64_t rows, Body&& body) {
  constexpr int64_t kRowsPerTask = 16;
  parallel_for(threads, (rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int worker) {
    const int64_t end = (task + 1) * kRowsPerTask < rows ? (task + 1) * kRowsPerTask : rows;
    for (int64_t i = task * kRowsPerTask; i < end; ++i) body(i, worker);
  });
}

}  // namespace fnce::cpu
