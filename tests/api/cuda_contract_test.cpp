// What the CUDA backend promises beside the truth: the CPU's results, the same bits in steps and again and again, no
// word of the host while a stream is captured, NaN for what only the device can see.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/compare.h"
#include "support/products.h"
#include "support/random_case.h"
#include "support/refusal.h"
#include "support/shards.h"

namespace {

using namespace support;

constexpr int32_t kBoth = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
constexpr int32_t kPresets[] = {FNCE_PRESET_MOCO, FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE};
constexpr const char* kGpuOnly = "it is about the CUDA backend";

bool on_gpu() { return device().kind() == FNCE_CUDA; }

// The arithmetics: a queue's type and a precision.
struct Arithmetic {
  int32_t queue_type, precision;
};
const std::vector<Arithmetic> kArithmetics{{FNCE_FLOAT32, FNCE_PRECISION_EXACT},
                                           {FNCE_FLOAT32, FNCE_PRECISION_FAST},
                                           {FNCE_FLOAT16, FNCE_PRECISION_EXACT},
                                           {FNCE_BFLOAT16, FNCE_PRECISION_EXACT}};

Case case_of(int32_t preset, const Arithmetic& a, int64_t n, int64_t k, int64_t d, int32_t scores = kBoth) {
  Case c = make_case(preset, n, k, d);
  set_types(c, FNCE_FLOAT32, a.queue_type, FNCE_FLOAT32);
  c.problem.precision = a.precision;
  c.problem.scores = scores;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  c.numbers.seed = 17;
  Random random(17);
  fill_inputs(c, random);
  c.label = describe(c) + " precision=" + std::to_string(a.precision);
  return c;
}

bool all_nan(const std::vector<float>& values) {
  for (const float value : values)
    if (!std::isnan(value)) return false;
  return true;
}

// fnce_scale and fnce_queue_push on whatever device() is.
std::vector<float> scaled(const std::vector<float>& gradient, int64_t columns, float by, int32_t type) {
  const Buffer<float> from(gradient), upstream(std::vector<float>{by});
  const auto count = static_cast<int64_t>(gradient.size());
  const Elements out(type, count);
  require_ok(fnce_scale(device().kind(), device().index(), from.get(), count / columns, columns, upstream.get(), 1,
                        type, out.get(), device().stream()));
  return out.values();
}

std::vector<float> pushed(const std::vector<float>& keys, int64_t d, int64_t k, int32_t type, bool normalize) {
  const Buffer<float> from(keys);
  const Elements queue(type, std::vector<float>(static_cast<size_t>(k * d), 0.5f));
  const Buffer<int64_t> in(std::vector<int64_t>{k - 2}), out(1);
  fnce_push push;
  require_ok(fnce_push_init(&push, sizeof push));
  push.n = from.count() / d;
  push.k = k;
  push.d = d;
  push.device = device().kind();
  push.device_index = device().index();
  push.queue_type = type;
  push.normalize = normalize;
  push.keys = from.get();
  push.queue = queue.get();
  push.position_in = in.get();
  push.position_out = out.get();
  require_ok(fnce_queue_push(&push, device().stream()));
  return queue.values();
}

}  // namespace

TEST_CASE("cuda: both backends meet their policies on the same cases, and each other's where none of them rounds") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const int32_t preset : kPresets)
    for (const Arithmetic& a : kArithmetics) {
      const Case c = case_of(preset, a, 33, 200, 64);
      INFO(c.label);
      const Outputs gpu = run_loss(c);
      const Truth gpu_truth(oracle_inputs(c));
      FNCE_CHECK_VERDICT(compare_all(c, gpu_truth, gpu));
      const OnCpu on_cpu;
      Case same = c;
      same.problem.device = FNCE_CPU;
      const Outputs cpu = run_loss(same);
      const Truth cpu_truth(oracle_inputs(same));
      FNCE_CHECK_VERDICT(compare_all(same, cpu_truth, cpu));
      if (!gpu_truth.inputs.rounds_anchor() && !cpu_truth.inputs.rounds_anchor())
        FNCE_CHECK_VERDICT(compare_all(c, gpu_truth, cpu));
    }
}

// sampling_semantics_test.cpp says the same of lambda. Where rows are mixed first, both calls run the same kernels on
// the same rows.
TEST_CASE("cuda: the permutation that a device draws is the inspected one, bit for bit in the results") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const int32_t lambda : {FNCE_LAMBDA_DIMENSION, FNCE_LAMBDA_ELEMENT})
    for (const int64_t block : {0, 16})
      for (const Arithmetic& a : kArithmetics) {
        Case c = case_of(FNCE_PRESET_FT, a, 9, 160, 33);
        c.problem.lambda_neg = lambda;
        c.problem.perm_block = block;
        Case given = c;
        given.arrays.permutation = permutation_of(c);
        given.problem.permutation_source = FNCE_GIVEN;
        given.problem.perm_block = 0;
        INFO(describe(c) << ", permutation of blocks of " << block);
        CHECK(same_bits(run_loss(c), run_loss(given)));
        std::swap(given.arrays.permutation[3], given.arrays.permutation[70]);
        CHECK(!same_bits(run_loss(c), run_loss(given)));
      }
}

TEST_CASE("cuda: scaled gradients and pushed keys have the bits of the CPU's") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  Random random(18);
  for (const int32_t type : kTypes)
    for (const int64_t d : {1, 7, 64, 257}) {
      INFO(type_name(type) << ", d " << d);
      const std::vector<float> rows = gaussian_rows(random, 33, d);
      const std::vector<float> gpu = scaled(rows, d, 0.37f, type), as_they_are = pushed(rows, d, 21, type, false);
      const std::vector<float> normalised = pushed(rows, d, 21, type, true);
      const OnCpu on_cpu;
      CHECK(same_bits(gpu, scaled(rows, d, 0.37f, type)));
      CHECK(same_bits(as_they_are, pushed(rows, d, 21, type, false)));
      // Norms are sums, and their order is the device's own.
      const std::vector<float> other = pushed(rows, d, 21, type, true);
      const double step = oracle::spacing(element_of(type), 1.0);
      for (size_t i = 0; i < other.size(); ++i)
        CHECK(std::abs(double(normalised[i]) - double(other[i])) <= (step + 4 * kFloatEpsilon) * std::abs(other[i]));
    }
}

TEST_CASE("cuda: one process in steps has the bits of fnce_loss, in every arithmetic") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const int32_t preset : kPresets)
    for (const Arithmetic& a : kArithmetics)
      for (const int64_t d : {65, 128}) {
        Case c = case_of(preset, a, 40, 150, d);
        c.problem.reduction = FNCE_REDUCTION_MEAN;
        INFO(c.label);
        CHECK(same_bits(run_loss(c), run_in_steps(c, {40}, {150}, Reduce::kMerge)));
      }
}

TEST_CASE("cuda: the same bits a hundred times") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const int32_t preset : kPresets)
    for (const Arithmetic& a : kArithmetics) {
      const int64_t k = device().emulated() ? 300 : 5000;
      const Case c = case_of(preset, a, 20, k, 64);
      INFO(c.label);
      const Plan plan(c.problem);
      const Outputs first = run_loss(c, plan, 0x00);
      int same = 0;
      const int repeats = affordable_repeats(100, 10);
      for (int i = 0; i < repeats; ++i) same += same_bits(first, run_loss(c, plan, i % 2 == 0 ? 0xFF : 0x7F));
      CHECK(same == repeats);
    }
}

TEST_CASE("cuda: a wrong number in device memory gives NaN") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  struct Wrong {
    const char* name;
    const float* fnce_args::*pointer;
    std::vector<float> values;
  };
  const std::vector<float> not_positive{0.0f, -0.5f, NAN, kInfinity, -kInfinity},
      not_finite{NAN, kInfinity, -kInfinity};
  const std::vector<Wrong> wrongs{{"temperature", &fnce_args::temperature_pointer, not_positive},
                                  {"alpha_pos", &fnce_args::alpha_pos_pointer, not_positive},
                                  {"alpha_neg", &fnce_args::alpha_neg_pointer, not_positive},
                                  {"shift_pos", &fnce_args::shift_pos_pointer, not_finite},
                                  {"shift_neg", &fnce_args::shift_neg_pointer, not_finite}};
  const auto check_nan = [](const Case& c, const auto& spoil) {
    const Plan plan(c.problem);
    Call call(c);
    spoil(call.args);
    const Buffer<unsigned char> workspace = make_workspace(plan);
    FNCE_REQUIRE_OK(fnce_loss(plan.get(), &call.args, workspace.get(), workspace.bytes(), device().stream()));
    const Outputs out = call.outputs();
    CHECK(all_nan(out.loss));
    CHECK(all_nan(out.dq));
    CHECK(all_nan(out.dk));
    CHECK(all_nan(out.dtemperature_rows));
    CHECK(all_nan(out.dtemperature));
  };
  for (const int32_t preset : {FNCE_PRESET_FT, FNCE_PRESET_FT_ELEMENTWISE}) {
    const Case c = case_of(preset, kArithmetics[0], 5, 40, 24, FNCE_SCORES_NONE);
    for (const Wrong& wrong : wrongs)
      for (const float value : wrong.values) {
        INFO("preset " << preset << ", " << wrong.name << " = " << value);
        const Buffer<float> memory(std::vector<float>{value});
        check_nan(c, [&](fnce_args& a) { a.*wrong.pointer = memory.get(); });
      }
    for (const uint64_t offset : {uint64_t{1}, uint64_t{6}, UINT64_MAX}) {
      INFO("preset " << preset << ", offset = " << offset);
      const Buffer<uint64_t> memory(std::vector<uint64_t>{offset});
      check_nan(c, [&](fnce_args& a) { a.offset_pointer = memory.get(); });
    }
  }
}

TEST_CASE("cuda: one place for both positions of a push is refused, and so is memory that the device cannot read") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  const Buffer<float> keys(std::vector<float>(12, 1.0f)), queue(std::vector<float>(20, 0.5f));
  const Buffer<int64_t> position(std::vector<int64_t>{0});
  fnce_push push;
  FNCE_REQUIRE_OK(fnce_push_init(&push, sizeof push));
  push.n = 3, push.k = 5, push.d = 4;
  push.device = device().kind();
  push.device_index = device().index();
  push.keys = keys.get();
  push.queue = queue.get();
  push.position_in = push.position_out = position.get();
  check_refused(fnce_queue_push(&push, device().stream()), FNCE_INVALID_ARGUMENT,
                {"push.position_out ", "position_in"});
  CHECK(queue.holds(std::vector<float>(20, 0.5f)));
  FNCE_SKIP_UNLESS(device().emulated(), "a GPU may read memory of the host");
  const Case c = case_of(FNCE_PRESET_FT, kArithmetics[0], 4, 32, 8);
  std::vector<float> host(4 * 8, 1.0f);
  check_args_refused(c, [&](fnce_args& a) { a.x_q = host.data(), a.checks = FNCE_CHECK_POINTERS; },
                     FNCE_INVALID_ARGUMENT, {"args.x_q ", "host memory", "device 0"});
  check_args_refused(c, [&](fnce_args& a) { a.dk = host.data(), a.checks = FNCE_CHECK_POINTERS; },
                     FNCE_INVALID_ARGUMENT, {"args.dk ", "host memory"});
}

TEST_CASE("cuda: a captured call draws anew each time, by an offset in device memory") {
  FNCE_SKIP_UNLESS(on_gpu(), kGpuOnly);
  for (const int32_t preset : kPresets)
    for (const Arithmetic& a : kArithmetics) {
      Case c = case_of(preset, a, 20, 150, 64);
      INFO(c.label);
      const Plan plan(c.problem);
      Call call(c);
      const Buffer<unsigned char> workspace = make_workspace(plan);
      Buffer<uint64_t> offset(std::vector<uint64_t>{0});
      call.args.offset_pointer = offset.get();
      const std::vector<uint64_t> offsets{0, 4, 400, 4};
      std::vector<Outputs> results;
      std::vector<std::function<void()>> before;
      for (const uint64_t& next : offsets)
        before.emplace_back([&] {
          if (&next != offsets.data()) results.push_back(call.outputs());
          offset.upload(&next);
        });
      const auto enqueue = [&] {
        require_ok(fnce_loss(plan.get(), &call.args, workspace.get(), workspace.bytes(), device().stream()));
      };
      FNCE_SKIP_UNLESS(device().replay(enqueue, before), "this device has no graphs");
      results.push_back(call.outputs());
      for (size_t i = 0; i < offsets.size(); ++i) {
        c.numbers.offset = offsets[i];
        INFO("offset " << offsets[i]);
        CHECK(same_bits(results[i], run_loss(c, plan)));
      }
      if (preset != FNCE_PRESET_MOCO) CHECK_FALSE(same_bits(results[0].dq, results[1].dq));
    }
}
