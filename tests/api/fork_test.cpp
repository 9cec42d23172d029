// A program that forks: parent and child both go on with the library, whatever the parent's threads were doing at that
// moment. And a process that may not start threads: calls run on those there are.
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "support/check.h"
#include "support/problem.h"
#include "support/random_case.h"

// TSan refuses threads in the child of a threaded process; the allocators of the sanitizers do not survive a fork in
// the middle of another thread's allocation, nor a limit on memory.
#if defined(__SANITIZE_ADDRESS__)
#define FNCE_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define FNCE_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FNCE_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define FNCE_TSAN 1
#endif
#endif

#ifndef FNCE_TSAN
namespace {

using namespace support;

constexpr const char* kNoFork = "a process that uses a GPU cannot go on in its fork";
constexpr int kGood = 0, kOtherBits = 1, kThrown = 2, kCannotTest = 77;

// Runs `work` in a child and returns its exit code; -1 if it was killed, as by the alarm of a child that waits for
// ever.
int in_child(const std::function<int()>& work) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    alarm(30);
    int code = kThrown;
    try {
      code = work();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
    }
    _exit(code);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid failed");
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Case forked_case(int32_t preset) {
  Case c = make_case(preset, 20, 1300, 24);
  c.problem.threads = 3;
  c.problem.scores = FNCE_SCORES_MIXED;
  Random random(7);
  fill_inputs(c, random);
  return c;
}

Outputs run_stateless(const Case& c) {
  size_t bytes = 0;
  require_ok(fnce_run_workspace(&c.problem, &bytes));
  const Call call(c);
  const Buffer<unsigned char> workspace(static_cast<int64_t>(bytes));
  require_ok(fnce_run(&c.problem, &call.args, workspace.get(), workspace.bytes(), device().stream()));
  return call.outputs();
}

// A call whose memory is all there: repeating it allocates nothing outside the library.
class PreparedCall {
 public:
  explicit PreparedCall(const Case& c) : plan_(c.problem), call_(c), workspace_(make_workspace(plan_)) {}
  void run() const {
    require_ok(fnce_loss(plan_.get(), &call_.args, workspace_.get(), workspace_.bytes(), device().stream()));
  }
  Outputs outputs() const { return call_.outputs(); }

 private:
  const Plan plan_;
  const Call call_;
  const Buffer<unsigned char> workspace_;
};

}  // namespace

TEST_CASE("fork: parent and child go on in turns, generation after generation") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kNoFork);
  for (const int32_t preset : {FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    const Case c = forked_case(preset);
    const Plan plan(c.problem);
    const Outputs expected = run_loss(c, plan);
    const auto same = [&] { return same_bits(expected, run_loss(c, plan)) && same_bits(expected, run_stateless(c)); };
    for (int round = 0; round < 5; ++round) {
      const int code = in_child([&] {
        if (!same()) return kOtherBits;
        const int grandchild = in_child([&] { return same() ? kGood : kOtherBits; });
        return grandchild == kGood && same() ? kGood : kOtherBits;
      });
      CHECK(code == kGood);
      CHECK(same());
    }
  }
}

TEST_CASE("fork: a child that calls first, while its parent calls too") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kNoFork);
  const Case c = forked_case(FNCE_PRESET_FT);
  const Outputs expected = run_loss(c);
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  bool same = true;
  if (child == 0) alarm(30);
  for (int i = 0; i < 20; ++i) same = same_bits(expected, run_loss(c)) && same;
  if (child == 0) _exit(same ? kGood : kOtherBits);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(same);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == kGood);
}

TEST_CASE("fork: while other threads are inside a call") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kNoFork);
  const Case c = forked_case(FNCE_PRESET_FT);
  const PreparedCall mine(c), busy(c), busy_too(c);
  mine.run();
  const Outputs expected = mine.outputs();
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0}, failures{0};
  const auto keep_calling = [&](const PreparedCall& call) {
    while (!stop) {
      try {
        call.run();
        ++calls;
      } catch (const std::exception&) {
        ++failures;
      }
    }
  };
  std::thread one([&] { keep_calling(busy); }), two([&] { keep_calling(busy_too); });
  while (calls < 4) std::this_thread::yield();
  int good = 0;
  for (int i = 0; i < 20; ++i)
    good += in_child([&] {
              mine.run();
              mine.run();
              return same_bits(expected, mine.outputs()) ? kGood : kOtherBits;
            }) == kGood;
  stop = true;
  one.join();
  two.join();
  CHECK(good == 20);
  CHECK(failures == 0);
  CHECK(same_bits(expected, busy.outputs()));
  CHECK(same_bits(expected, busy_too.outputs()));
}

#ifndef FNCE_ASAN
TEST_CASE("fork: while other threads add plans to the cache of fnce_run and drop them") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kNoFork);
  Case c = forked_case(FNCE_PRESET_MOCO);
  c.problem.k = 16;
  c.arrays.queue.resize(static_cast<size_t>(16 * c.problem.d));
  const Outputs expected = run_stateless(c);
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&, t] {
      fnce_problem other = c.problem;
      size_t bytes = 0;
      for (int64_t i = 0; !stop; ++i) {
        other.row_offset = 1 + (2 * i + t) % 600;  // more problems than are kept
        failures += fnce_run_workspace(&other, &bytes) != FNCE_OK;
      }
    });
  int good = 0;
  for (int i = 0; i < 20; ++i)
    good += in_child([&] { return same_bits(expected, run_stateless(c)) ? kGood : kOtherBits; }) == kGood;
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(good == 20);
  CHECK(failures == 0);
}

namespace {

bool can_start_a_thread() {
  try {
    std::thread([] {}).join();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

// No further mapping of the size of a stack; and none of the stacks that ended threads have left behind is large
// enough.
bool limit_address_space() {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstacksize(&attributes, size_t{64} << 20) != 0 ||
      pthread_setattr_default_np(&attributes) != 0)
    return false;
  long pages = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (!file) return false;
  const bool read = std::fscanf(file, "%ld", &pages) == 1;
  std::fclose(file);
  const rlim_t now = static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
  const rlimit limit{now + (rlim_t{3} << 20), now + (rlim_t{3} << 20)};
  return read && setrlimit(RLIMIT_AS, &limit) == 0;
}

// No further process or thread of this user. The superuser has no such limit, so it becomes somebody else.
bool limit_processes() {
  const rlimit limit{0, 0};
  if (setrlimit(RLIMIT_NPROC, &limit) != 0) return false;
  return geteuid() != 0 || setuid(65534) == 0;
}

}  // namespace

TEST_CASE("fork: where no thread can be started, the calling thread does it all") {
  FNCE_SKIP_UNLESS(device().kind() == FNCE_CPU, kNoFork);
  const Case c = forked_case(FNCE_PRESET_FT);
  const Outputs expected = run_loss(c);
  const struct {
    const char* name;
    bool (*set)();
  } limits[] = {{"address space", limit_address_space}, {"processes", limit_processes}};
  for (const auto& limit : limits) {
    INFO(limit.name);
    const int code = in_child([&] {
      const PreparedCall call(c);
      if (!limit.set() || can_start_a_thread()) return kCannotTest;
      for (int i = 0; i < 3; ++i) call.run();
      return same_bits(expected, call.outputs()) ? kGood : kOtherBits;
    });
    if (code == kCannotTest) {
      WARN("this system does not let a process forbid itself threads: " << limit.name);
      continue;
    }
    CHECK(code == kGood);
  }
}
#endif  // FNCE_ASAN
#endif  // FNCE_TSAN
