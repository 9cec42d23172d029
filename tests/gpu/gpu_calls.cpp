// The library's calls on a device, as a training job makes them.
//
//   gpu_calls small        each structure once, whole and in steps, push, scale and scores: what the sanitizers run
//   gpu_calls determinism  100 repeats of each: the same bits
//   gpu_calls graphs       captured once, replayed with other seeds, offsets, temperatures: the bits of a direct call
//   gpu_calls streams      many calls of one plan on two streams at once: the bits of one after the other
//   gpu_calls soak         --steps N (100000) in at most --seconds S (420): memory of device and process stays
//
//   --json FILE  a report     --repeats N  fewer or more     --cases small  without the sizes of training
//   --device cpu  the CPU backend instead (not `graphs`)
//
// Exit code: 0, 1 (something failed), 77 (no device; 1 where FLASHNCE_REQUIRE_GPU=1).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>

#include "gpu/calls.h"
#include "gpu/report.h"

namespace fnce::gpu {
namespace {

struct Options {
  const char* json = nullptr;
  int64_t steps = 100000;
  double seconds = 420;
  int repeats = 100;
  bool training = true;
};

// Runs `body` per case; it gives a sentence where something is wrong.
void each_case(Report& report, const std::vector<Case>& cases, const std::function<std::string(const Case&)>& body) {
  for (const Case& c : cases) {
    std::string wrong;
    try {
      wrong = body(c);
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    report.check(c.name, wrong.empty() ? Status::kPass : Status::kFail, wrong);
  }
}

Call make_call(const Case& c) { return Call(std::make_shared<Plan>(c), inputs_of(c)); }

std::string finite(const Call& call) {
  const float loss = call.loss();
  return std::isfinite(loss) ? "" : "the loss is " + std::to_string(loss);
}

// A batch of keys into a ring, positions in device memory.
class Push {
 public:
  Push(const Case& c, const Inputs& inputs) : queue_(inputs.queue.bytes()), positions_(std::vector<int64_t>{3, 0}) {
    queue_.fill(0);
    FNCE_GPU_CHECK(fnce_push_init(&push_, sizeof push_));
    push_.n = c.n;
    push_.k = c.k;
    push_.d = c.d;
    push_.device = device_kind();
    push_.key_type = c.feature_type;
    push_.queue_type = c.queue_type;
    push_.keys = inputs.x_k.get();
    push_.queue = queue_.get();
    push_.position_in = positions_.as<int64_t>();
    push_.position_out = positions_.as<int64_t>() + 1;
  }
  void enqueue(const Stream& stream) {
    FNCE_GPU_CHECK(fnce_queue_push(&push_, stream.get()));
    int64_t* const written = push_.position_out;
    push_.position_out = positions_.as<int64_t>() + (written == positions_.as<int64_t>());
    push_.position_in = written;
  }
  const Memory& queue() const { return queue_; }

 private:
  Memory queue_, positions_;
  fnce_push push_{};
};

std::string small(const Case& c) {
  const auto inputs = inputs_of(c);
  const auto plan = std::make_shared<Plan>(c);
  Call call(plan, inputs), steps(plan, inputs);
  const Stream stream;
  call.enqueue(stream);
  steps.enqueue_steps(stream);
  if (c.k > 3) Push(c, *inputs).enqueue(stream);
  Memory scores(static_cast<size_t>(c.n) * 4), workspace(plan->workspace_bytes());
  fnce_score_buffers buffers{};
  buffers.neg_mean = scores.as<float>();
  FNCE_GPU_CHECK(fnce_scores(plan->get(), &call.args(), &buffers, workspace.get(), workspace.bytes(), stream.get()));
  const Memory upstream(std::vector<float>{2.0f}), scaled(static_cast<size_t>(c.n * c.d) * 2);
  FNCE_GPU_CHECK(fnce_scale(device_kind(), 0, static_cast<const float*>(call.args().dq), c.n, c.d, upstream.as<float>(),
                            1, FNCE_BFLOAT16, scaled.get(), stream.get()));
  stream.wait();
  return finite(call) + finite(steps);
}

std::string determinism(const Case& c, int repeats) {
  Call call = make_call(c);
  const Stream stream;
  std::vector<unsigned char> first;
  for (int i = 0; i < repeats; ++i) {
    call.spoil();
    call.set(5, 8, 0.1f);
    call.enqueue(stream);
    stream.wait();
    std::vector<unsigned char> now = call.results();
    if (i == 0)
      first = std::move(now);
    else if (const std::string wrong = difference(now, first); !wrong.empty())
      return "repeat " + std::to_string(i) + ": " + wrong;
  }
  return finite(call);
}

std::string graphs(const Case& c) {
  const auto inputs = inputs_of(c);
  const auto plan = std::make_shared<Plan>(c);
  Call captured(plan, inputs), direct(plan, inputs);
  const Stream stream;
  const Graph graph(stream, [&] { captured.enqueue(stream); });
  std::set<std::string> seen;
  for (int i = 0; i < 10; ++i) {
    const uint64_t seed = 100 + static_cast<uint64_t>(i / 2), offset = 4 * static_cast<uint64_t>(i % 2);
    const float temperature = i < 5 ? 0.1f : 0.3f;
    for (Call* call : {&captured, &direct}) {
      call->spoil();
      call->set(seed, offset, temperature);
    }
    graph.launch(stream);
    direct.enqueue(stream);
    stream.wait();
    const std::vector<unsigned char> results = captured.results();
    if (const std::string wrong = difference(results, direct.results()); !wrong.empty())
      return "replay " + std::to_string(i) + ": " + wrong;
    seen.emplace(results.begin(), results.end());
  }
  // Without draws only the temperature makes a difference.
  const size_t expected = c.preset == FNCE_PRESET_MOCO ? (c.k + c.batch > 0 ? 2 : 1) : 10;
  if (seen.size() != expected)
    return std::to_string(seen.size()) + " different results of 10 replays, not " + std::to_string(expected);
  return finite(direct);
}

std::string streams(const Case& c, int repeats) {
  const int each = std::min(repeats, 8), rounds = std::min(repeats, 5);
  const auto inputs = inputs_of(c);
  const auto plan = std::make_shared<Plan>(c);
  const Stream two[2];
  std::vector<Call> calls;
  std::vector<std::vector<unsigned char>> expected;
  for (int i = 0; i < 2 * each; ++i) {
    Call& call = calls.emplace_back(plan, inputs);
    call.spoil();
    call.set(static_cast<uint64_t>(i), 0, 0.1f);
    call.enqueue(two[0]);
    two[0].wait();
    expected.push_back(call.results());
  }
  for (int round = 0; round < rounds; ++round) {
    for (Call& call : calls) call.spoil();
    if (on_cuda()) FNCE_GPU_CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < 2 * each; ++i) calls[static_cast<size_t>(i)].enqueue(two[i % 2]);
    for (const Stream& stream : two) stream.wait();
    for (size_t i = 0; i < calls.size(); ++i)
      if (const std::string wrong = difference(calls[i].results(), expected[i]); !wrong.empty())
        return "round " + std::to_string(round) + ", call " + std::to_string(i) + ": " + wrong;
  }
  return "";
}

// MiB of device memory that are free, and of this process that are resident.
struct Usage {
  double device_free = 0, resident = 0;
};
Usage usage() {
  Usage now;
  if (on_cuda()) {
    size_t free_bytes = 0, total = 0;
    FNCE_GPU_CHECK(cudaMemGetInfo(&free_bytes, &total));
    now.device_free = static_cast<double>(free_bytes) / (1 << 20);
  }
  double pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  now.resident = pages * 4096 / (1 << 20);
  return now;
}

void soak(Report& report, const Options& options) {
  constexpr int64_t kRound = 500;            // steps between looks at memory
  constexpr double kDevice = 8, kHost = 16;  // MiB that may come and go: other programs, the allocator
  Case c{"ft f16, loss and push", FNCE_PRESET_FT, 32, 128, 128, FNCE_FLOAT16, FNCE_FLOAT16};
  if (options.training) {
    c.n = 256, c.k = 16384;
    // A slower family in the same time.
    if (Plan(c).info().family == FNCE_FAMILY_PLAIN) c.n = 64, c.k = 4096;
  }
  const auto inputs = inputs_of(c);
  const Stream stream;
  Call call(std::make_shared<Plan>(c), inputs);
  Push push(c, *inputs);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  Usage first, last;
  float loss = 0;
  int64_t step = 0;
  for (; step < options.steps && elapsed() < options.seconds; ++step) {
    if (step % kRound == 0) {
      // A new plan now and then: what plans hold must come back. Another seed, and the loss of the first one again.
      call = Call(std::make_shared<Plan>(c), inputs);
      call.set(7, 0, 0.1f);
      call.enqueue(stream);
      stream.wait();
      if (step == 0) loss = call.loss();
      if (call.loss() != loss) return report.check(c.name, Status::kFail, "the loss of the same step has changed");
      call.set(static_cast<uint64_t>(step), 0, 0.1f);
      if (step == 2 * kRound) first = usage();
      last = usage();
    }
    call.enqueue(stream);
    push.enqueue(stream);
  }
  stream.wait();
  report.number("steps", static_cast<double>(step));
  report.number("seconds", elapsed());
  report.number("device memory taken, MiB", first.device_free - last.device_free);
  report.number("process memory taken, MiB", last.resident - first.resident);
  std::string wrong = finite(call);
  if (step < options.steps)
    wrong =
        std::to_string(step) + " steps in " + std::to_string(elapsed()) + " s, not " + std::to_string(options.steps);
  if (step > 2 * kRound && first.device_free - last.device_free > kDevice) wrong = "device memory has shrunk";
  if (step > 2 * kRound && last.resident - first.resident > kHost) wrong = "the process has grown";
  report.check(c.name, wrong.empty() ? Status::kPass : Status::kFail, wrong);
}

std::string device_name() {
  if (!on_cuda()) return "cpu";
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return "";
  int32_t usable = 0;
  FNCE_GPU_CHECK(fnce_device_count(FNCE_CUDA, &usable));
  if (usable == 0) throw std::runtime_error("CUDA has a device, but the library does not use it");
  cudaDeviceProp properties;
  FNCE_GPU_CHECK(cudaGetDeviceProperties(&properties, 0));
  return properties.name;
}

int run(const std::string& mode, const Options& options) {
  const std::string device = device_name();
  if (device.empty()) return std::printf("SKIP  no device\n"), no_device_code();
  std::vector<Case> cases = small_cases();
  if (mode != "small" && options.training && on_cuda())
    for (const Case& c : training_cases()) cases.push_back(c);
  Report report(options.json, device);
  if (mode == "small")
    each_case(report, cases, small);
  else if (mode == "determinism")
    each_case(report, cases, [&](const Case& c) { return determinism(c, options.repeats); });
  else if (mode == "graphs")
    each_case(report, cases, graphs);
  else if (mode == "streams")
    each_case(report, cases, [&](const Case& c) { return streams(c, options.repeats); });
  else
    soak(report, options);
  std::printf("%d checks, %d failed\n", report.checks(), report.failed());
  return report.failed() ? 1 : 0;
}

int usage_error() {
  std::fprintf(
      stderr,
      "usage: gpu_calls small|determinism|graphs|streams|soak [--json FILE] [--device cuda|cpu] [--cases all|small] "
      "[--steps N] [--seconds S] [--repeats N]\n");
  return 1;
}

int main_of(int argc, char** argv) {
  const std::string modes[] = {"small", "determinism", "graphs", "streams", "soak"};
  if (argc < 2 || argc % 2 != 0 || std::find(std::begin(modes), std::end(modes), argv[1]) == std::end(modes))
    return usage_error();
  Options options;
  for (int i = 2; i < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--json")
      options.json = argv[i + 1];
    else if (name == "--device" && (value == "cpu" || value == "cuda"))
      device_kind() = value == "cpu" ? FNCE_CPU : FNCE_CUDA;
    else if (name == "--steps")
      options.steps = std::atoll(value.c_str());
    else if (name == "--seconds")
      options.seconds = std::atof(value.c_str());
    else if (name == "--repeats")
      options.repeats = std::max(1, std::atoi(value.c_str()));
    else if (name == "--cases" && (value == "small" || value == "all"))
      options.training = value == "all";
    else
      return usage_error();
  }
  if (!on_cuda() && std::string(argv[1]) == "graphs") return usage_error();
  return run(argv[1], options);
}

}  // namespace
}  // namespace fnce::gpu

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    return fnce::gpu::main_of(argc, argv);
  } catch (const std::exception& error) {
    std::printf("FAIL  %s\n", error.what());
    return 1;
  }
}
