// The CPU backend's threads: every task once, workers told apart, callers at the same time, a forked child, and a
// system that gives fewer threads than asked for.
#include "cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "support/catch.h"
#include "support/check.h"

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

// True if `threads` workers are seen at the same time: each task waits for the others, for a while.
bool works_on_threads(int threads) {
  std::atomic<int> arrived{0};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  parallel_for(threads, threads, [&](int64_t, int) {
    ++arrived;
    while (arrived < threads && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  });
  return std::chrono::steady_clock::now() < deadline;
}

}  // namespace

TEST_CASE("pool: tasks run at the same time") {
  CHECK(works_on_threads(2));
  CHECK(works_on_threads(5));
}

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

namespace {

std::vector<int> processors_of_this_thread() {
  cpu_set_t set;
  std::vector<int> found;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return found;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &set)) found.push_back(i);
  return found;
}

bool allow(pid_t thread, const std::vector<int>& processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int i : processors) CPU_SET(i, &set);
  return sched_setaffinity(thread, sizeof(set), &set) == 0;
}

}  // namespace

TEST_CASE("pool: a worker that wakes up on the caller's processor moves to another one, and may run where it might") {
  const std::vector<int> all = processors_of_this_thread();
  FNCE_SKIP_UNLESS(all.size() >= 2, "one processor");
  pid_t worker_thread = 0;
  std::vector<int> allowed;
  // Runs one task on each thread; the worker's says where it began.
  const auto run = [&](int& began) {
    std::atomic<int> arrived{0};
    parallel_for(2, 2, [&](int64_t, int worker) {
      if (worker == 1) {
        began = sched_getcpu();
        worker_thread = static_cast<pid_t>(syscall(SYS_gettid));
        allowed = processors_of_this_thread();
      }
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
  };
  int began = -1;
  run(began);
  REQUIRE(worker_thread != 0);
  const std::vector<int> before = allowed;
  for (int i = 0; i < 20; ++i) {
    // Both on one processor; then the worker may leave, but nothing makes it.
    REQUIRE((allow(0, {all[0]}) && allow(worker_thread, {all[0]}) && allow(worker_thread, {all[0], all[1]})));
    run(began);
    CHECK(began == all[1]);
    CHECK(allowed == std::vector<int>{all[0], all[1]});
  }
  REQUIRE((allow(0, all) && allow(worker_thread, before)));
}

// TSan refuses threads in the child of a threaded process, ASan a limit on address space.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FNCE_TSAN 1
#endif
#if __has_feature(address_sanitizer)
#define FNCE_ASAN 1
#endif
#endif
#if !defined(__SANITIZE_THREAD__) && !defined(FNCE_TSAN)
TEST_CASE("pool: a forked child starts threads of its own") {
  REQUIRE(runs_each_task_once(3, 50));
  // All have started: one that is about to may hold a lock of a sanitizer's, which stays locked in the child.
  REQUIRE(works_on_threads(3));
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(20);  // a child that waits for its parent's threads would wait for ever
    _exit(runs_each_task_once(3, 50) && works_on_threads(3) ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(runs_each_task_once(3, 50));
  CHECK(works_on_threads(3));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(FNCE_ASAN)
namespace {

// Bytes of address space that this process has mapped.
rlim_t address_space() {
  unsigned long pages = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  if (std::fscanf(file, "%lu", &pages) != 1) pages = 0;
  std::fclose(file);
  return rlim_t{pages} * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("pool: where the system gives fewer threads, those do the work, and more join when it gives more") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(60);
    // Address space for two stacks or three, while stacks that ended threads have left are too small to be used again.
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, size_t{64} << 20);
    pthread_setattr_default_np(&attributes);
    rlimit all{};
    getrlimit(RLIMIT_AS, &all);
    rlimit limit = all;
    limit.rlim_cur = address_space() + (rlim_t{160} << 20);
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(2);
    const bool few = runs_each_task_once(8, 200);
    setrlimit(RLIMIT_AS, &all);
    _exit(few && works_on_threads(8) ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif
#endif
