// The CPU backend's threads: every task once, workers told apart, callers at the same time, and a forked child.
#include "cpu/pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/catch.h"

namespace {

using fnce::cpu::parallel_for;

// Runs `tasks` tasks and says whether each ran once and no two at the same time as the same worker.
bool runs_each_task_once(int threads, int64_t tasks) {
  std::vector<std::atomic<int>> ran(static_cast<size_t>(tasks));
  std::vector<std::atomic<int>> active(static_cast<size_t>(threads));
  std::atomic<bool> ok{true};
  parallel_for(threads, tasks, [&](int64_t task, int worker) {
    if (worker < 0 || worker >= threads || active[static_cast<size_t>(worker)].fetch_add(1) != 0) ok = false;
    ran[static_cast<size_t>(task)].fetch_add(1);
    active[static_cast<size_t>(worker)].fetch_sub(1);
  });
  for (const auto& count : ran) ok = ok && count == 1;
  return ok;
}

}  // namespace

TEST_CASE("pool: every task runs once, whatever the number of threads") {
  for (int threads : {1, 2, 3, 8})
    for (int64_t tasks : {0, 1, 2, 7, 1000}) {
      CAPTURE(threads, tasks);
      CHECK(runs_each_task_once(threads, tasks));
    }
}

TEST_CASE("pool: thousands of short jobs in a row neither hang nor lose a task") {
  bool ok = true;
  for (int i = 0; i < 5000; ++i) ok = ok && runs_each_task_once(1 + i % 4, i % 9);
  CHECK(ok);
}

TEST_CASE("pool: callers at the same time from several threads each get their tasks done") {
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller)
    callers.emplace_back([&] {
      bool ok = true;
      for (int i = 0; i < 300; ++i) ok = ok && runs_each_task_once(3, 17);
      good += ok;
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 6);
}

// TSan refuses threads in the child of a threaded process.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FNCE_TSAN 1
#endif
#endif
#if !defined(__SANITIZE_THREAD__) && !defined(FNCE_TSAN)
TEST_CASE("pool: a forked child starts threads of its own") {
  REQUIRE(runs_each_task_once(3, 50));
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(20);  // a child that waits for its parent's threads would wait for ever
    _exit(runs_each_task_once(3, 50) ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(runs_each_task_once(3, 50));
}
#endif
