// Many threads of a program inside the library at once: one plan shared by eight of them, stateless calls, pushes,
// plans made and destroyed, and the number of threads changed meanwhile. Everybody gets the bits they would have had
// alone.
#include <atomic>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "support/check.h"
#include "support/problem.h"
#include "support/random_case.h"
#include "support/shards.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;

Case shared_case(int32_t preset, int64_t n, int64_t k, int64_t d, int32_t threads) {
  Case c = make_case(preset, n, k, d);
  c.problem.scores = kBoth;
  c.problem.threads = threads;
  c.numbers.seed = static_cast<uint64_t>(n * 1000 + k);
  Random random(c.numbers.seed);
  fill_inputs(c, random);
  return c;
}

// Threads that start together; each says whether all went well. Assertions stay on the main thread.
class Crew {
 public:
  void add(std::string name, std::function<bool()> work) {
    members_.push_back({std::move(name), std::move(work), "did not run"});
  }
  // The first complaint, or "".
  std::string run() {
    std::atomic<size_t> ready{0};
    std::vector<std::thread> threads;
    for (Member& member : members_)
      threads.emplace_back([&] {
        ready.fetch_add(1);
        while (ready.load() < members_.size()) std::this_thread::yield();
        try {
          member.complaint = member.work() ? "" : "got other bits than alone";
        } catch (const std::exception& error) {
          member.complaint = error.what();
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (const Member& member : members_)
      if (!member.complaint.empty()) return member.name + ": " + member.complaint;
    return "";
  }

 private:
  struct Member {
    std::string name;
    std::function<bool()> work;
    std::string complaint;
  };
  std::vector<Member> members_;
};

// Pushes batch after batch into a queue of its own, and says whether the rows are those of `expected` (empty: sets it).
bool push_batches(uint64_t seed, std::vector<float>& expected) {
  const int64_t k = 300, d = 160, batches = 4;
  Random random(seed);
  const Buffer<float> queue(std::vector<float>(static_cast<size_t>(k * d), 0.0f));
  const Buffer<int64_t> positions[] = {Buffer<int64_t>(std::vector<int64_t>{3}), Buffer<int64_t>(1)};
  for (int64_t b = 0; b < batches; ++b) {
    const Buffer<float> keys(gaussian_rows(random, 220, d));
    fnce_push push;
    require_ok(fnce_push_init(&push, sizeof push));
    push.n = 220;
    push.k = k;
    push.d = d;
    push.device = device().kind();
    push.device_index = device().index();
    push.keys = keys.get();
    push.queue = queue.get();
    push.position_in = positions[b % 2].get();
    push.position_out = positions[(b + 1) % 2].get();
    require_ok(fnce_queue_push(&push, device().stream()));
  }
  if (expected.empty()) expected = queue.values();
  return queue.guards_intact() && same_bits(expected, queue.values());
}

bool run_equals(const Case& c, const Outputs& expected) {
  fnce_problem problem = c.problem;
  // Else the workspace's size follows fnce_set_threads, perhaps between these two calls.
  if (problem.threads == 0) problem.threads = 2;
  size_t bytes = 0;
  require_ok(fnce_run_workspace(&problem, &bytes));
  const Call call(c);
  const Buffer<unsigned char> workspace(static_cast<int64_t>(bytes));
  require_ok(fnce_run(&problem, &call.args, workspace.get(), workspace.bytes(), device().stream()));
  call.check_memory();
  return same_bits(expected, call.outputs());
}

class ThreadsSetting {
 public:
  ThreadsSetting() : before_(fnce_get_threads()) {}
  ~ThreadsSetting() { fnce_set_threads(before_); }
  ThreadsSetting(const ThreadsSetting&) = delete;
  ThreadsSetting& operator=(const ThreadsSetting&) = delete;

 private:
  const int32_t before_;
};

}  // namespace

TEST_CASE("concurrency: eight threads share one plan, among stateless calls, pushes and a changing number of threads") {
  const ThreadsSetting restore;
  struct Shape {
    int32_t preset;
    int64_t n, k, d;
    int32_t threads;
  };
  for (const Shape& s : {Shape{FNCE_PRESET_FT, 33, device().emulated() ? 100 : 1500, 24, 3},
                         Shape{FNCE_PRESET_FT_ELEMENTWISE, 20, device().emulated() ? 70 : 700, 16, 2},
                         Shape{FNCE_PRESET_MOCO, 70, device().emulated() ? 100 : 1000, 8, 0}}) {
    const Case c = shared_case(s.preset, s.n, s.k, s.d, s.threads);
    INFO(describe(c));
    const Plan plan(c.problem);
    const Outputs expected = run_loss(c, plan);
    const Outputs in_steps = run_in_steps(c, {s.n}, {s.k}, Reduce::kMerge);
    Crew crew;
    for (int t = 0; t < 8; ++t)
      crew.add("thread " + std::to_string(t) + " of the plan", [&] {
        bool same = true;
        for (int repeat = 0; repeat < affordable_repeats(4, 2); ++repeat)
          same = same_bits(expected, run_loss(c, plan)) && same;
        return same;
      });
    crew.add("stateless", [&] { return run_equals(c, expected) && run_equals(c, expected); });
    crew.add("in steps", [&] { return same_bits(in_steps, run_in_steps(c, {s.n}, {s.k}, Reduce::kMerge)); });
    for (uint64_t seed : {1, 2}) {
      std::vector<float> rows;
      REQUIRE(push_batches(seed, rows));
      crew.add("push", [seed, rows]() mutable { return push_batches(seed, rows) && push_batches(seed, rows); });
    }
    crew.add("set_threads", [] {
      for (int32_t i = 0; i < 200; ++i) {
        require_ok(fnce_set_threads(1 + i % 5));
        std::this_thread::yield();
      }
      return true;
    });
    CHECK(crew.run() == "");
  }
}

TEST_CASE("concurrency: plans are made, used and destroyed by many threads at once") {
  const Case c = shared_case(FNCE_PRESET_FT, 9, 200, 16, 2);
  const Outputs expected = run_loss(c);
  Crew crew;
  for (int t = 0; t < 6; ++t)
    crew.add("maker", [&] {
      bool same = true;
      for (int repeat = 0; repeat < affordable_repeats(30, 5); ++repeat)
        same = same_bits(expected, run_loss(c)) && same;
      return same;
    });
  CHECK(crew.run() == "");
}

TEST_CASE("concurrency: stateless calls of more problems than are kept, from several threads") {
  // A plan that leaves the cache while another thread still uses it stays alive until that call ends.
  Crew crew;
  for (int64_t t = 0; t < 4; ++t)
    crew.add("caller", [t] {
      Case c = shared_case(FNCE_PRESET_FT, 3, 32, 8, 1);
      const Outputs expected = run_loss(c);
      for (int64_t i = 0; i < 120; ++i) {
        // Queries and draws are the same, so are the results: only the problem's bytes differ.
        c.problem.perm_block = 32 + 16 * ((i * 4 + t) % 400);
        if (!run_equals(c, expected)) return false;
      }
      return true;
    });
  CHECK(crew.run() == "");
}

TEST_CASE("concurrency: every thread has its own last error") {
  Crew crew;
  for (int32_t t = 0; t < 8; ++t)
    crew.add("thread " + std::to_string(t), [t] {
      for (int repeat = 0; repeat < 50; ++repeat) {
        if (fnce_set_threads(-1 - t) != FNCE_INVALID_ARGUMENT) return false;
        std::this_thread::yield();
        if (std::strstr(fnce_last_error(), ("threads is " + std::to_string(-1 - t) + ";").c_str()) == nullptr)
          return false;
      }
      return true;
    });
  CHECK(crew.run() == "");
}
