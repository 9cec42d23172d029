// Steps of the library by shape, element type and preset.
#include <flashnce/flashnce.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <vector>

#include "cuda/benchmarks.h"

namespace fnce::bench::gpu {
namespace {

constexpr double kColdFactor = 2.5;  // size of all queues of a cold measurement over L2
constexpr int kFewestColdQueues = 2, kMostColdQueues = 512;
constexpr double kHotSeconds = 0.01;  // of the steps between two events, where that is between so many of them
constexpr int kFewestHotSteps = 4, kMostHotSteps = 20;

void check(fnce_status status, const char* what) {
  if (status != FNCE_OK)
    throw std::runtime_error(std::string(what) + ": " + fnce_status_string(status) + ": " + fnce_last_error());
}
#define FNCE_BENCH_CALL(call) check(call, #call)

struct Element {
  const char* name;
  int32_t type, precision;
  size_t size;
};
constexpr Element kElements[] = {{"float32", FNCE_FLOAT32, FNCE_PRECISION_EXACT, 4},
                                 {"float32-fast", FNCE_FLOAT32, FNCE_PRECISION_FAST, 4},
                                 {"float16", FNCE_FLOAT16, FNCE_PRECISION_EXACT, 2},
                                 {"bfloat16", FNCE_BFLOAT16, FNCE_PRECISION_EXACT, 2}};

struct Preset {
  const char* name;
  int32_t value;
};
constexpr Preset kPresets[] = {
    {"moco", FNCE_PRESET_MOCO}, {"ft", FNCE_PRESET_FT}, {"ft-elementwise", FNCE_PRESET_FT_ELEMENTWISE}};

template <class Named, size_t kCount>
const Named* find(const Named (&all)[kCount], const std::string& name) {
  const Named* found = std::find_if(all, all + kCount, [&](const Named& one) { return one.name == name; });
  return found == all + kCount ? nullptr : found;
}

struct Cell {
  int64_t n = 0, k = 0, d = 0;
  const Element* element = nullptr;
  const Preset* preset = nullptr;
  bool operator==(const Cell&) const = default;
};

Cell parse(const std::string& line) {
  std::istringstream words(line);
  Cell cell;
  std::string type, preset, rest;
  const bool complete = words >> cell.n >> cell.k >> cell.d >> type >> preset && !(words >> rest);
  cell.element = find(kElements, type);
  cell.preset = find(kPresets, preset);
  if (!complete || !cell.element || !cell.preset)
    throw std::runtime_error("a cell is N K D TYPE PRESET, not '" + line + "'");
  return cell;
}

// Rows of random signs and magnitudes with unit length on average, 4096 of them repeated to fill `memory`, in the
// element type.
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
  FNCE_BENCH_CHECK(cudaDeviceSynchronize());  // streams of their own do not wait for these copies
}

// A plan of a cell with everything that a step needs, and queues side by side in one array.
class Step {
 public:
  Step(const Cell& cell, int64_t l2_bytes) {
    const Element& element = *cell.element;
    FNCE_BENCH_CALL(fnce_problem_init(&problem_, sizeof problem_, cell.preset->value));
    problem_.n = cell.n;
    problem_.k = cell.k;
    problem_.d = cell.d;
    problem_.device = FNCE_CUDA;
    problem_.feature_type = problem_.queue_type = element.type;
    problem_.precision = element.precision;
    fnce_plan* plan = nullptr;
    FNCE_BENCH_CALL(fnce_plan_create(&problem_, &plan));
    plan_.reset(plan);
    const size_t features = static_cast<size_t>(cell.n * cell.d),
                 queue = static_cast<size_t>(cell.k * cell.d) * element.size;
    queue_bytes_ = (queue + 255) / 256 * 256;
    const double filling = std::ceil(kColdFactor * static_cast<double>(l2_bytes) / static_cast<double>(queue_bytes_));
    cold_queues_ = static_cast<int>(std::clamp<double>(filling, kFewestColdQueues, kMostColdQueues));
    size_t bytes = 0;
    FNCE_BENCH_CALL(fnce_plan_workspace(plan, &bytes));
    fnce_layout layout;
    FNCE_BENCH_CALL(fnce_partial_layout(plan, &layout, sizeof layout));
    workspace_ = Memory(bytes);
    partial_ = Memory(layout.bytes);
    queues_ = Memory(queue_bytes_ * static_cast<size_t>(cold_queues_));
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

  int cold_queues() const { return cold_queues_; }
  size_t workspace_bytes() const { return workspace_.bytes(); }
  const char* description() const { return fnce_plan_describe(plan_.get()); }

  void loss(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(fnce_loss(plan_.get(), &args_, workspace_.get(), workspace_.bytes(), stream));
  }
  void prep(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(fnce_prep(plan_.get(), &args_, &anchors_, workspace_.get(), workspace_.bytes(), stream));
  }
  void partial(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(fnce_partial(plan_.get(), &args_, &anchors_, partial_.get(), partial_.bytes(), workspace_.get(),
                                 workspace_.bytes(), stream));
  }
  void finish(int queue, cudaStream_t stream) {
    point(queue);
    FNCE_BENCH_CALL(fnce_finish(plan_.get(), &args_, partial_.get(), partial_.bytes(), workspace_.get(),
                                workspace_.bytes(), stream));
  }

 private:
  void point(int queue) {
    args_.queue = queues_.as<char>() + static_cast<size_t>(queue) * queue_bytes_;
    args_.seed = static_cast<uint64_t>(queue);
  }

  struct Destroy {
    void operator()(fnce_plan* plan) const { fnce_plan_destroy(plan); }
  };
  fnce_problem problem_;
  std::unique_ptr<fnce_plan, Destroy> plan_;
  fnce_args args_{};
  fnce_anchors anchors_{};
  size_t queue_bytes_ = 0;
  int cold_queues_ = 1;
  Memory workspace_, partial_, queues_, x_q_, x_k_, dq_, anchor_, loss_;
};

using Part = void (Step::*)(int, cudaStream_t);

// The step of the cell that was asked for last: benchmarks run cell by cell, and a cell's queues take up to gigabytes.
class Steps {
 public:
  // Throws std::runtime_error; again, without another try, for a cell that failed.
  Step& of(const Cell& cell, const Session& session) {
    if (cell_ != cell) {
      step_.reset();
      error_.clear();
      cell_ = cell;
      try {
        prepare(session);
      } catch (const std::exception& error) {
        error_ = error.what();
      }
    }
    if (!error_.empty()) throw std::runtime_error(error_);
    return *step_;
  }
  int hot_steps() const { return hot_steps_; }

 private:
  void prepare(const Session& session) {
    auto step = std::make_unique<Step>(*cell_, attribute(cudaDevAttrL2CacheSize));
    const cudaStream_t stream = session.watch.stream();
    // Once outside of any capture, so that all code is loaded and the anchors and the partial are there.
    for (const Part part : {&Step::loss, &Step::prep, &Step::partial, &Step::finish}) ((*step).*part)(0, stream);
    FNCE_BENCH_CHECK(cudaStreamSynchronize(stream));
    const double seconds = session.watch.seconds([&] { step->loss(0, stream); });
    hot_steps_ = static_cast<int>(std::clamp<double>(kHotSeconds / seconds, kFewestHotSteps, kMostHotSteps));
    step_ = std::move(step);
  }

  std::optional<Cell> cell_;
  std::string error_;
  std::unique_ptr<Step> step_;
  int hot_steps_ = kFewestHotSteps;
};

struct Measurement {
  const char* name;
  Part part;
  Way way;
  bool cold;
};
constexpr Measurement kMeasurements[] = {
    {"step/graph/cold", &Step::loss, Way::kGraph, true},
    {"step/stream/cold", &Step::loss, Way::kStream, true},
    {"partial/graph/cold", &Step::partial, Way::kGraph, true},
    {"step/graph/hot", &Step::loss, Way::kGraph, false},
    {"step/stream/hot", &Step::loss, Way::kStream, false},
    {"partial/graph/hot", &Step::partial, Way::kGraph, false},
    {"prep/graph/hot", &Step::prep, Way::kGraph, false},
    {"finish/graph/hot", &Step::finish, Way::kGraph, false},
};

void run(benchmark::State& state, const Session& session, const Measurement& m, Step& step, int hot_steps) {
  const int steps = m.cold ? step.cold_queues() : hot_steps;
  measure(state, session, m.way, steps, [&] {
    for (int i = 0; i < steps; ++i) (step.*m.part)(m.cold ? i : 0, session.watch.stream());
  });
  if (&m == kMeasurements) state.SetLabel(step.description());  // once a cell: it is long
  state.counters["cold_queues"] = step.cold_queues();
  state.counters["workspace"] = static_cast<double>(step.workspace_bytes());
}

std::string name_of(const Measurement& m, const Cell& cell) {
  return std::string(m.name) + "/" + cell.preset->name + "/" + cell.element->name + "/n:" + std::to_string(cell.n) +
         "/k:" + std::to_string(cell.k) + "/d:" + std::to_string(cell.d);
}

}  // namespace

void register_cells(Session& session, std::istream& lines) {
  const auto steps = std::make_shared<Steps>();
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    const Cell cell = parse(line);
    for (const Measurement& m : kMeasurements)
      register_benchmark(session, name_of(m, cell), [&session, &m, cell, steps](benchmark::State& state) {
        Step& step = steps->of(cell, session);
        run(state, session, m, step, steps->hot_steps());
      });
  }
}

}  // namespace fnce::bench::gpu
