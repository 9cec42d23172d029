// Many training steps in one process: losses of changing sizes and seeds, pushes, stateless calls, the loss in steps,
// refused calls, plans made and destroyed, one and two threads. The memory in use must be flat after the warm-up.
//
//   FNCE_SOAK_STEPS=100000 soak
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "flashnce/flashnce.h"
#include "soak/live_blocks.h"

namespace {

constexpr int64_t kMaxRows = 48, kMaxKeys = 400, kMaxFeatures = 64;
// The sizes repeat after so many steps (seeds and contents do not), so that what is in use is the same at the end of
// every round: what is left of a round is a leak. The first round is the warm-up.
constexpr int64_t kRound = 2500;
constexpr int64_t kAllowedLive = 8, kAllowedResident = 2 << 20;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "soak: %s\n", what);
  std::exit(1);
}

void require(fnce_status status, const char* call) {
  if (status == FNCE_OK) return;
  std::fprintf(stderr, "%s: %s\n", call, fnce_last_error());
  fail("a valid call is refused");
}

// Bytes of memory that are really there.
int64_t resident_now() {
  long pages = 0, resident = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  return resident * sysconf(_SC_PAGESIZE);
}

class Random {
 public:
  uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  int64_t within(int64_t low, int64_t high) { return low + bits() % (high - low + 1); }
  float number() { return static_cast<float>(bits()) * 0x1p-30f - 1; }

 private:
  uint64_t state_ = 42;
};

struct Arrays {
  explicit Arrays(Random& random)
      : x_q(kMaxRows * kMaxFeatures), x_k(x_q.size()), queue(kMaxKeys * kMaxFeatures), dq(x_q.size()), dk(x_q.size()) {
    for (auto* array : {&x_q, &x_k, &queue})
      for (float& value : *array) value = random.number();
  }
  std::vector<float> x_q, x_k, queue, dq, dk;
  float loss = 0;
  int64_t position = 0;
};

// Memory aligned for the library, released at the end of the step.
class Aligned {
 public:
  explicit Aligned(size_t bytes) : bytes_(bytes), data_(::operator new(bytes + 1, kAlignment)) {}
  ~Aligned() { ::operator delete(data_, kAlignment); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr std::align_val_t kAlignment{FNCE_ALIGNMENT};
  const size_t bytes_;
  void* const data_;
};

fnce_problem choose_problem(Random& random) {
  fnce_problem p;
  require(fnce_problem_init(&p, sizeof p, static_cast<int32_t>(random.within(0, 2))), "fnce_problem_init");
  p.n = random.within(1, kMaxRows);
  p.k = random.within(0, kMaxKeys);
  p.d = random.within(1, kMaxFeatures);
  p.threads = static_cast<int32_t>(random.within(0, 2));
  p.scores = static_cast<int32_t>(random.within(0, 3));
  return p;
}

fnce_args choose_args(Random& random, Arrays& arrays, const fnce_problem& p) {
  fnce_args a;
  require(fnce_args_init(&a, sizeof a), "fnce_args_init");
  a.x_q = arrays.x_q.data();
  a.x_k = arrays.x_k.data();
  a.queue = p.k > 0 ? arrays.queue.data() : nullptr;
  a.loss = &arrays.loss;
  a.dq = arrays.dq.data();
  a.dk = random.bits() % 2 ? arrays.dk.data() : nullptr;
  return a;
}

void run_in_steps(const fnce_plan* plan, const fnce_problem& p, const fnce_args& args, const Aligned& workspace) {
  fnce_layout layout;
  require(fnce_partial_layout(plan, &layout, sizeof layout), "fnce_partial_layout");
  const Aligned partial(layout.bytes), anchor(static_cast<size_t>(p.n * p.d) * 4);
  const Aligned pos(static_cast<size_t>(p.n) * 4), unmixed_pos(static_cast<size_t>(p.n) * 4);
  const fnce_anchors anchors{
      anchor.data(), static_cast<float*>(pos.data()), static_cast<float*>(unmixed_pos.data()), {}};
  require(fnce_prep(plan, &args, &anchors, workspace.data(), workspace.bytes(), nullptr), "fnce_prep");
  require(
      fnce_partial(plan, &args, &anchors, partial.data(), layout.bytes, workspace.data(), workspace.bytes(), nullptr),
      "fnce_partial");
  require(fnce_finish(plan, &args, partial.data(), layout.bytes, workspace.data(), workspace.bytes(), nullptr),
          "fnce_finish");
}

void push_keys(Random& random, Arrays& arrays, int64_t d) {
  fnce_push push;
  require(fnce_push_init(&push, sizeof push), "fnce_push_init");
  push.n = random.within(0, kMaxRows);
  push.k = kMaxKeys;
  push.d = d;
  push.keys = arrays.x_k.data();
  push.queue = arrays.queue.data();
  push.position_in = push.position_out = &arrays.position;
  require(fnce_queue_push(&push, nullptr), "fnce_queue_push");
}

// `number` of the round; `seed` of the whole run.
void step(int64_t number, uint64_t seed, Random& random, Arrays& arrays, fnce_plan*& plan, fnce_problem& problem) {
  if (number % 10 == 0) {
    fnce_plan_destroy(plan);
    problem = choose_problem(random);
    require(fnce_plan_create(&problem, &plan), "fnce_plan_create");
  }
  size_t bytes = 0;
  require(fnce_plan_workspace(plan, &bytes), "fnce_plan_workspace");
  const Aligned workspace(bytes);
  fnce_args args = choose_args(random, arrays, problem);
  args.seed = seed;
  if (number % 16 == 3)
    run_in_steps(plan, problem, args, workspace);
  else
    require(fnce_loss(plan, &args, workspace.data(), workspace.bytes(), nullptr), "fnce_loss");
  if (!std::isfinite(arrays.loss)) fail("the loss is not finite");
  push_keys(random, arrays, problem.d);

  // More problems than fnce_run keeps.
  fnce_problem other = problem;
  other.row_offset = number % 1000;
  other.threads = 1;
  require(fnce_run_workspace(&other, &bytes), "fnce_run_workspace");
  if (number % 50 == 0) require(fnce_set_threads(1 + number / 50 % 2), "fnce_set_threads");
  if (fnce_loss(plan, &args, nullptr, 0, nullptr) == FNCE_OK) fail("a call without a workspace is accepted");
}

}  // namespace

int main() {
  const char* setting = std::getenv("FNCE_SOAK_STEPS");
  const int64_t asked = setting ? std::atoll(setting) : 5000, rounds = 1 + (asked + kRound - 1) / kRound;
  Random random;
  Arrays arrays(random);
  fnce_plan* plan = nullptr;
  fnce_problem problem = {};
  int64_t live_first = 0, resident_first = 0, live = 0, resident = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    random = Random();
    for (int64_t i = 0; i < kRound; ++i)
      step(i, static_cast<uint64_t>(round * kRound + i), random, arrays, plan, problem);
    live = soak::live();
    resident = resident_now();
    if (round == 0) live_first = live, resident_first = resident;
  }
  fnce_plan_destroy(plan);
  std::printf("%lld steps after %lld of warm-up: in use %lld -> %lld, resident %lld -> %lld bytes\n",
              static_cast<long long>((rounds - 1) * kRound), static_cast<long long>(kRound),
              static_cast<long long>(live_first), static_cast<long long>(live), static_cast<long long>(resident_first),
              static_cast<long long>(resident));
  std::fflush(stdout);
  if (live - live_first > kAllowedLive) fail("memory in use has grown");
  // A sanitizer keeps freed memory for a while.
  if (!soak::kSanitized && resident - resident_first > kAllowedResident) fail("resident memory has grown");
  return 0;
}
