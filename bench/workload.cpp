// Inputs and calls that the benchmarks of the C interface share.
#include "workload.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace fnce::bench {
namespace {

// SplitMix64: fast enough for millions of numbers per shape, and the same on every machine.
uint64_t next_random(uint64_t& state) {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The parts of "a,b,c".
std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(by)) != std::string_view::npos; text.remove_prefix(end + 1))
    parts.push_back(text.substr(0, end));
  parts.push_back(text);
  return parts;
}

bool parse_shape(std::string_view text, Shape& shape) {
  const std::vector<std::string_view> parts = split(text, 'x');
  int64_t* const sizes[] = {&shape.n, &shape.k, &shape.d};
  if (parts.size() != 3) return false;
  for (size_t i = 0; i < 3; ++i) {
    const char *begin = parts[i].data(), *end = begin + parts[i].size();
    const auto [stop, error] = std::from_chars(begin, end, *sizes[i]);
    if (error != std::errc() || stop != end || *sizes[i] < 1) return false;
  }
  return true;
}

std::string parse_option(std::string_view name, std::string_view text, Options& options) {
  if (name == "--types") options.elements.clear();
  for (const std::string_view part : split(text, ',')) {
    if (name == "--shapes") {
      Shape shape;
      if (!parse_shape(part, shape)) return "--shapes takes NxKxD,..., not '" + std::string(part) + "'";
      options.shapes.push_back(shape);
    } else {
      const auto* found = std::find_if(std::begin(kElements), std::end(kElements),
                                       [&](const Element& element) { return element.name == part; });
      if (found == std::end(kElements))
        return "--types takes float32, bfloat16 and float16, not '" + std::string(part) + "'";
      options.elements.push_back(*found);
    }
  }
  return "";
}

}  // namespace

std::string take_options(int& argc, char** argv, Options& options) {
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    if (equals == std::string_view::npos || (name != "--shapes" && name != "--types")) {
      argv[kept++] = argv[i];
      continue;
    }
    if (std::string wrong = parse_option(name, argument.substr(equals + 1), options); !wrong.empty()) return wrong;
  }
  argc = kept;
  return "";
}

std::vector<float> random_rows(int64_t rows, int64_t d, uint64_t seed, bool unit) {
  std::vector<float> values(static_cast<size_t>(rows * d));
  for (float& value : values) value = static_cast<float>(static_cast<double>(next_random(seed) >> 11) * 0x1p-52 - 1.0);
  for (int64_t i = 0; unit && i < rows; ++i) {
    float* row = values.data() + i * d;
    double sum = 0;
    for (int64_t c = 0; c < d; ++c) sum += double{row[c]} * row[c];
    const float scale = static_cast<float>(1 / std::sqrt(sum));
    for (int64_t c = 0; c < d; ++c) row[c] *= scale;
  }
  return values;
}

std::vector<std::byte> rounded(const std::vector<float>& values, const Element& element) {
  const float one = 1;
  const int64_t count = static_cast<int64_t>(values.size());
  std::vector<std::byte> bytes(static_cast<size_t>(count * element.size));
  if (fnce_scale(FNCE_CPU, 0, values.data(), 1, count, &one, 1, element.type, bytes.data(), nullptr) != FNCE_OK)
    bytes.clear();
  return bytes;
}

const Inputs& inputs_of(const Shape& shape, const Element& element) {
  static Shape kept{0, 0, 0};
  static int32_t kept_type = 0;
  static Inputs inputs;
  if (kept.n != shape.n || kept.k != shape.k || kept.d != shape.d || kept_type != element.type) {
    const std::vector<float> x_q = random_rows(shape.n, shape.d, 1, false);
    std::vector<float> x_k = random_rows(shape.n, shape.d, 2, false);
    // Keys near their queries, as an encoder's are.
    for (size_t i = 0; i < x_k.size(); ++i) x_k[i] = x_q[i] + 0.5f * x_k[i];
    inputs.x_q = rounded(x_q, element);
    inputs.x_k = rounded(x_k, element);
    inputs.queue = rounded(random_rows(shape.k, shape.d, 3, true), element);
    kept = shape;
    kept_type = element.type;
  }
  return inputs;
}

int32_t all_threads() {
  static const int32_t threads = fnce_get_threads();
  return threads;
}

std::vector<int32_t> thread_counts() {
  return all_threads() > 1 ? std::vector<int32_t>{1, all_threads()} : std::vector<int32_t>{1};
}

bool succeeded(benchmark::State& state, fnce_status status) {
  if (status == FNCE_OK) return true;
  state.SkipWithError(fnce_last_error());
  return false;
}

fnce_problem preset_of(int32_t preset, int32_t threads) {
  fnce_problem problem;
  // Presets and the size are constants of this program.
  if (fnce_problem_init(&problem, sizeof problem, preset) != FNCE_OK) std::abort();
  problem.threads = threads;
  return problem;
}

void LossCall::Free::operator()(std::byte* p) const { std::free(p); }

LossCall::LossCall(fnce_problem problem, const Shape& shape, Gradients gradients, const Element& element)
    : problem_(problem) {
  problem_.n = shape.n;
  problem_.k = shape.k;
  problem_.d = shape.d;
  problem_.feature_type = problem_.queue_type = element.type;
  if ((status_ = fnce_args_init(&args_, sizeof args_)) != FNCE_OK) return;
  if ((status_ = fnce_plan_create(&problem_, &plan_)) != FNCE_OK) return;
  if ((status_ = fnce_plan_workspace(plan_, &workspace_bytes_)) != FNCE_OK) return;
  const size_t bytes = (workspace_bytes_ + FNCE_ALIGNMENT) / FNCE_ALIGNMENT * FNCE_ALIGNMENT;
  workspace_.reset(static_cast<std::byte*>(std::aligned_alloc(FNCE_ALIGNMENT, bytes)));
  if (!workspace_) std::abort();

  const Inputs& inputs = inputs_of(shape, element);
  args_.x_q = inputs.x_q.data();
  args_.x_k = inputs.x_k.data();
  args_.queue = inputs.queue.data();
  args_.loss = &loss_;
  if (gradients == Gradients::kDq) {
    dq_.resize(static_cast<size_t>(shape.n * shape.d));
    args_.dq = dq_.data();
  }
  if (problem_.scores != FNCE_SCORES_NONE) point_scores();
}

void LossCall::point_scores() {
  const size_t n = static_cast<size_t>(problem_.n);
  float_scores_.resize(14 * n);
  int_scores_.resize(6 * n);
  float* f = float_scores_.data();
  int64_t* i = int_scores_.data();
  const auto next = [n](auto*& p) { return std::exchange(p, p + n); };
  for (fnce_score_buffers* buffers : {&args_.mixed, &args_.unmixed}) {
    const bool mixed = buffers == &args_.mixed;
    if (!(problem_.scores & (mixed ? FNCE_SCORES_MIXED : FNCE_SCORES_UNMIXED))) continue;
    for (float** field : {&buffers->pos, &buffers->neg_mean, &buffers->neg_variance, &buffers->neg_min,
                          &buffers->neg_max, &buffers->neg_log_mean_exp})
      *field = next(f);
    for (int64_t** field : {&buffers->neg_count, &buffers->n_greater, &buffers->n_greater_equal}) *field = next(i);
    if (mixed) {
      buffers->entropy = next(f);
      buffers->dq_norm = next(f);
    }
  }
}

fnce_status LossCall::run() {
  ++args_.seed;
  return fnce_loss(plan_, &args_, workspace_.get(), workspace_bytes_, nullptr);
}

double LossCall::gemm_flops() const {
  const double product =
      2.0 * static_cast<double>(problem_.n) * static_cast<double>(problem_.k) * static_cast<double>(problem_.d);
  return (args_.dq || args_.mixed.entropy ? 2 : 1) * product;
}

}  // namespace fnce::bench
