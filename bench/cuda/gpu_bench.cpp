// Times of the library on a GPU, for machines that have no Google Benchmark: a line of JSON per result.
//
//   gpu_bench info     the device and the library
//   gpu_bench rates    what the device can do
//   gpu_bench cells    reads a cell a line, "N K D TYPE PRESET" (TYPE float32, float32-fast, float16 or bfloat16), and times it
//
// The whole step (loss and dq) in a CUDA graph and on a stream; with a hot queue (the same one again and again) and a cold one
// (every step has another, and all of them are far larger than L2); and its parts by fnce_prep, fnce_partial and fnce_finish.
// Exit code: 0, 1 (wrong use, or the device failed), 77 (no device; 1 where FLASHNCE_REQUIRE_GPU=1).
#include <flashnce/flashnce.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>

#include "cuda/device.h"
#include "cuda/rates.h"

namespace fnce::bench::gpu {
namespace {

constexpr double kSeconds = 0.25;  // of one measurement, at most (it has at least 3 repeats)
constexpr double kColdFactor = 2.5;
constexpr int kMostSteps = 512, kHotSteps = 20;

void check(fnce_status status, const char* what) {
  if (status != FNCE_OK)
    throw std::runtime_error(std::string(what) + ": " + fnce_status_string(status) + ": " + fnce_last_error());
}
#define FNCE_BENCH_CALL(call) check(call, #call)

struct Cell {
  int64_t n = 0, k = 0, d = 0;
  std::string type, preset;
};

bool parse(const std::string& line, Cell& cell) {
  std::istringstream words(line);
  std::string rest;
  return static_cast<bool>(words >> cell.n >> cell.k >> cell.d >> cell.type >> cell.preset) && !(words >> rest);
}

struct Element {
  int32_t type, precision;
  size_t size;
};

Element element_of(const std::string& name) {
  if (name == "float32") return {FNCE_FLOAT32, FNCE_PRECISION_EXACT, 4};
  if (name == "float32-fast") return {FNCE_FLOAT32, FNCE_PRECISION_FAST, 4};
  if (name == "float16") return {FNCE_FLOAT16, FNCE_PRECISION_EXACT, 2};
  if (name == "bfloat16") return {FNCE_BFLOAT16, FNCE_PRECISION_EXACT, 2};
  throw std::runtime_error("no type " + name);
}

int32_t preset_of(const std::string& name) {
  if (name == "moco") return FNCE_PRESET_MOCO;
  if (name == "ft") return FNCE_PRESET_FT;
  if (name == "ft-elementwise") return FNCE_PRESET_FT_ELEMENTWISE;
  throw std::runtime_error("no preset " + name);
}

// Unit rows of random signs and magnitudes, 4096 of them repeated to fill `memory`, in the element type.
void fill_rows(const Memory& memory, int64_t d, const Element& element, uint64_t seed) {
  const int64_t rows = 4096;
  std::vector<float> values(static_cast<size_t>(rows * d));
  uint64_t state = seed;
  for (float& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value =
        static_cast<float>(static_cast<double>(state >> 11) * 0x1p-52 - 1.0) * std::sqrt(3.0f / static_cast<float>(d));
  }
  std::vector<char> bytes(values.size() * element.size);
  const float one = 1;
  FNCE_BENCH_CALL(fnce_scale(FNCE_CPU, 0, values.data(), 1, rows * d, &one, 1, element.type, bytes.data(), nullptr));
  for (size_t at = 0; at < memory.bytes(); at += bytes.size())
    FNCE_BENCH_CHECK(cudaMemcpy(memory.as<char>() + at, bytes.data(), std::min(bytes.size(), memory.bytes() - at),
                                cudaMemcpyHostToDevice));
}

// A plan of a cell with everything that a step needs, and queues side by side in one array.
class Step {
 public:
  Step(const Cell& cell, int64_t l2_bytes) {
    const Element element = element_of(cell.type);
    FNCE_BENCH_CALL(fnce_problem_init(&problem_, sizeof problem_, preset_of(cell.preset)));
    problem_.n = cell.n;
    problem_.k = cell.k;
    problem_.d = cell.d;
    problem_.device = FNCE_CUDA;
    problem_.feature_type = problem_.queue_type = element.type;
    problem_.precision = element.precision;
    FNCE_BENCH_CALL(fnce_plan_create(&problem_, &plan_));
    const size_t features = static_cast<size_t>(cell.n * cell.d),
                 queue = static_cast<size_t>(cell.k * cell.d) * element.size;
    queue_bytes_ = (queue + 255) / 256 * 256;
    cold_steps_ = std::min(kMostSteps, static_cast<int>(std::ceil(kColdFactor * static_cast<double>(l2_bytes) /
                                                                  static_cast<double>(queue_bytes_))));
    cold_steps_ = std::max(cold_steps_, 2);
    size_t bytes = 0;
    FNCE_BENCH_CALL(fnce_plan_workspace(plan_, &bytes));
    fnce_layout layout;
    FNCE_BENCH_CALL(fnce_partial_layout(plan_, &layout, sizeof layout));
    workspace_ = Memory(bytes);
    partial_ = Memory(layout.bytes);
    queues_ = Memory(queue_bytes_ * static_cast<size_t>(cold_steps_));
    x_q_ = Memory(features * element.size);
    x_k_ = Memory(features * element.size);
    dq_ = Memory(features * 4);
    anchor_ = Memory(features * 4);
    loss_ = Memory(4);
    uint64_t seed = 0;
    for (const Memory* memory : {&queues_, &x_q_, &x_k_}) fill_rows(*memory, cell.d, element, ++seed);
    FNCE_BENCH_CALL(fnce_args_init(&args_, sizeof args_));
    args_.x_q = x_q_.get();
    args_.x_k = x_k_.get();
    args_.loss = loss_.as<float>();
    args_.dq = dq_.get();
    anchors_.anchor = anchor_.get();
  }
  ~Step() { fnce_plan_destroy(plan_); }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  int cold_steps() const { return cold_steps_; }
  size_t workspace_bytes() const { return workspace_.bytes(); }
  const char* description() const { return fnce_plan_describe(plan_); }

  void loss(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(fnce_loss(plan_, &args_, workspace_.get(), workspace_.bytes(), stream));
  }
  void prep(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(fnce_prep(plan_, &args_, &anchors_, workspace_.get(), workspace_.bytes(), stream));
  }
  void partial(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(fnce_partial(plan_, &args_, &anchors_, partial_.get(), partial_.bytes(), workspace_.get(),
                                 workspace_.bytes(), stream));
  }
  void finish(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(
        fnce_finish(plan_, &args_, partial_.get(), partial_.bytes(), workspace_.get(), workspace_.bytes(), stream));
  }

 private:
  void point(int queue) {
    args_.queue = queues_.as<char>() + static_cast<size_t>(queue) * queue_bytes_;
    args_.seed = static_cast<uint64_t>(queue);
  }

  fnce_problem problem_;
  fnce_plan* plan_ = nullptr;
  fnce_args args_{};
  fnce_anchors anchors_{};
  size_t queue_bytes_ = 0;
  int cold_steps_ = 1;
  Memory workspace_, partial_, queues_, x_q_, x_k_, dq_, anchor_, loss_;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + '"';
}

std::string head_of(const Cell& cell) {
  return "{\"shape\": [" + std::to_string(cell.n) + ", " + std::to_string(cell.k) + ", " + std::to_string(cell.d) +
         "], \"type\": " + quoted(cell.type) + ", \"preset\": " + quoted(cell.preset);
}

void measure(const Timer& timer, const Cell& cell, int64_t l2_bytes) {
  Step step(cell, l2_bytes);
  using Part = void (Step::*)(int, cudaStream_t);
  std::string times;
  const auto put = [&](const std::string& name, const Spread& us) {
    char text[160];
    std::snprintf(text, sizeof text, "%s: {\"median\": %.4g, \"min\": %.4g, \"max\": %.4g}", quoted(name).c_str(),
                  us.median, us.least, us.most);
    times += (times.empty() ? "" : ", ") + std::string(text);
  };
  // Once outside of any capture, so that all code is loaded and the anchors and the partial are there.
  for (const Part part : {&Step::loss, &Step::prep, &Step::partial, &Step::finish}) (step.*part)(0, timer.stream());
  FNCE_BENCH_CHECK(cudaStreamSynchronize(timer.stream()));
  const auto repeated = [&](Part part, bool cold) {
    return [&step, &timer, part, cold] {
      const int steps = cold ? step.cold_steps() : kHotSteps;
      for (int i = 0; i < steps; ++i) (step.*part)(cold ? i : 0, timer.stream());
    };
  };
  for (const bool cold : {true, false}) {
    const int steps = cold ? step.cold_steps() : kHotSteps;
    const std::string end = cold ? "_cold" : "_hot";
    put("step_graph" + end, timer.graph_us(steps, kSeconds, repeated(&Step::loss, cold)));
    put("step_stream" + end, timer.stream_us(steps, kSeconds, repeated(&Step::loss, cold)));
    put("partial_graph" + end, timer.graph_us(steps, kSeconds, repeated(&Step::partial, cold)));
  }
  put("prep_graph", timer.graph_us(kHotSteps, kSeconds, repeated(&Step::prep, false)));
  put("finish_graph", timer.graph_us(kHotSteps, kSeconds, repeated(&Step::finish, false)));
  std::printf("%s, \"us\": {%s}, \"cold_queues\": %d, \"workspace\": %zu, \"plan\": %s}\n", head_of(cell).c_str(),
              times.c_str(), step.cold_steps(), step.workspace_bytes(), quoted(step.description()).c_str());
}

// A device that has failed fails for all that follows: the program ends.
int cells() {
  const Timer timer;
  const int64_t l2_bytes = attribute(cudaDevAttrL2CacheSize);
  for (std::string line; std::getline(std::cin, line);) {
    Cell cell;
    if (line.empty()) continue;
    if (!parse(line, cell)) throw std::runtime_error("a cell is N K D TYPE PRESET, not '" + line + "'");
    try {
      measure(timer, cell, l2_bytes);
    } catch (const std::exception& error) {
      std::printf("%s, \"error\": %s}\n", head_of(cell).c_str(), quoted(error.what()).c_str());
      if (cudaDeviceSynchronize() != cudaSuccess) return 1;
      cudaGetLastError();
    }
  }
  return 0;
}

int info() {
  cudaDeviceProp properties;
  FNCE_BENCH_CHECK(cudaGetDeviceProperties(&properties, 0));
  int32_t usable = 0;
  FNCE_BENCH_CALL(fnce_device_count(FNCE_CUDA, &usable));
  std::printf("{\"device\": %s, \"library\": %s, \"usable\": %d}\n", quoted(properties.name).c_str(),
              quoted(fnce_build_info()).c_str(), usable);
  return usable > 0 ? 0 : 1;
}

int no_device_code() {
  const char* required = std::getenv("FLASHNCE_REQUIRE_GPU");
  return required != nullptr && std::strcmp(required, "1") == 0 ? 1 : 77;
}

int run(const std::string& mode) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
    return std::printf("{\"device\": null}\n"), no_device_code();
  if (mode == "info") return info();
  if (mode == "cells") return cells();
  measure_rates([](const std::string& name, double value, const std::string& unit) {
    std::printf("{\"rate\": %s, \"value\": %.6g, \"unit\": %s}\n", quoted(name).c_str(), value, quoted(unit).c_str());
  });
  return 0;
}

}  // namespace
}  // namespace fnce::bench::gpu

int main(int argc, char** argv) {
  const std::string mode = argc == 2 ? argv[1] : "";
  if (mode != "info" && mode != "rates" && mode != "cells")
    return std::fprintf(stderr, "usage: gpu_bench info|rates|cells\n"), 1;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    return fnce::bench::gpu::run(mode);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return 1;
  }
}
