// Runs whole calls on the harness's device and on the CPU, whose results are the truth here: calls_driver <most cases> <wrong ones
// to bear>. Ends like main_driver. planted.py builds it with a bug in a kernel of kernels/rows or kernels/engines/plain.
#include <flashnce/flashnce.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "hostcuda/launch.h"

namespace {

struct Case {
  int64_t n, k, d;
  int32_t preset = FNCE_PRESET_FT;
  int32_t lambda = -1;  // granularity of both mixings where not the preset's
  bool renormalizes = false, statistics = false;
};

// Several splits, several tiles, one row and many; every way of mixing.
constexpr Case kCases[] = {
    {7, 2100, 40, FNCE_PRESET_FT, -1, false, true},
    {5, 300, 150, FNCE_PRESET_FT, FNCE_LAMBDA_DIMENSION, true, true},
    {9, 130, 33, FNCE_PRESET_FT_ELEMENTWISE, -1, true, false},
    {3, 700, 130, FNCE_PRESET_FT, FNCE_LAMBDA_ROW, true, true},
    {17, 140, 64, FNCE_PRESET_MOCO, -1, false, true},
    {1, 1, 3},
    {4, 0, 20},
};

constexpr float kTolerance = 1e-4f;  // of a row's norm; a bug is off by far more

struct Results {
  std::vector<float> loss, dq, dk, dtemperature, mean, pos, unmixed;
  std::vector<int64_t> greater;
};

// The results of a case on a device; they start as NaN. Returns the library's sentence, or "".
std::string run(const Case& c, int32_t device, Results& out) {
  std::mt19937_64 random(static_cast<uint64_t>(c.n * 7919 + c.k));
  std::normal_distribution<float> normal;
  const auto rows = [&](int64_t count) {
    std::vector<float> values(static_cast<size_t>(count * c.d));
    for (float& value : values) value = normal(random) / std::sqrt(static_cast<float>(c.d));
    return values;
  };
  const std::vector<float> x_q = rows(c.n), x_k = rows(c.n), queue = rows(c.k);
  const auto n = static_cast<size_t>(c.n);
  const std::vector<float> nan(1, __builtin_nanf(""));
  out = {std::vector<float>(n, nan[0]),          std::vector<float>(x_q.size(), nan[0]),
         std::vector<float>(x_q.size(), nan[0]), nan,
         std::vector<float>(n, nan[0]),          std::vector<float>(n, nan[0]),
         std::vector<float>(n, nan[0]),          std::vector<int64_t>(n, -1)};
  fnce_problem problem;
  fnce_problem_init(&problem, sizeof problem, c.preset);
  problem.n = c.n;
  problem.k = c.k;
  problem.d = c.d;
  problem.device = device;
  problem.reduction = FNCE_REDUCTION_NONE;
  if (device == FNCE_CPU)
    problem.threads = 1;  // ThreadSanitizer does not see how the CPU's threads wait for each other
  if (c.lambda >= 0) problem.lambda_pos = problem.lambda_neg = c.lambda;
  problem.renormalize_pos = problem.renormalize_neg = c.renormalizes;
  if (c.statistics) problem.scores = FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED;
  fnce_args args;
  fnce_args_init(&args, sizeof args);
  args.x_q = x_q.data();
  args.x_k = x_k.data();
  args.queue = c.k > 0 ? queue.data() : nullptr;
  args.temperature = 0.2f;
  args.seed = 11;
  args.loss = out.loss.data();
  args.dq = out.dq.data();
  args.dk = out.dk.data();
  args.dtemperature = out.dtemperature.data();
  if (c.statistics) {
    args.mixed.neg_mean = out.mean.data();
    args.mixed.pos = out.pos.data();
    args.mixed.n_greater = out.greater.data();
    args.unmixed.neg_log_mean_exp = out.unmixed.data();
  }
  fnce_plan* plan = nullptr;
  size_t bytes = 0;
  fnce_status status = fnce_plan_create(&problem, &plan);
  if (status == FNCE_OK) status = fnce_plan_workspace(plan, &bytes);
  if (status == FNCE_OK) {
    // What a device's memory holds at first; of the size that was asked for, so that a sanitizer sees what is beyond.
    void* const workspace = std::aligned_alloc(FNCE_ALIGNMENT, (bytes / FNCE_ALIGNMENT + 1) * FNCE_ALIGNMENT);
    std::memset(workspace, 0xFF, bytes);
    status = fnce_loss(plan, &args, workspace, bytes, nullptr);
    std::free(workspace);
  }
  fnce_plan_destroy(plan);
  return status == FNCE_OK ? "" : fnce_last_error();
}

std::string difference(const char* what, const std::vector<float>& truth, const std::vector<float>& got,
                       int64_t width) {
  for (size_t row = 0; row < truth.size(); row += static_cast<size_t>(width)) {
    float norm = 0, error = 0;
    for (size_t i = row; i < row + static_cast<size_t>(width); ++i) {
      if (std::isnan(truth[i]) && std::isnan(got[i])) continue;
      norm += truth[i] * truth[i];
      error += (got[i] - truth[i]) * (got[i] - truth[i]);
    }
    if (!(std::sqrt(error) <= kTolerance * (std::sqrt(norm) + 1e-3f)))
      return std::string(what) + " of row " + std::to_string(static_cast<int64_t>(row) / width) + " is wrong";
  }
  return "";
}

// "" or what is wrong.
std::string check(const Case& c) {
  Results truth, got;
  if (const std::string refused = run(c, FNCE_CPU, truth); !refused.empty()) return "the CPU refused: " + refused;
  if (const std::string failed = run(c, FNCE_CUDA, got); !failed.empty()) return failed;
  std::string wrong = difference("loss", truth.loss, got.loss, 1);
  if (wrong.empty()) wrong = difference("dq", truth.dq, got.dq, c.d);
  if (wrong.empty()) wrong = difference("dk", truth.dk, got.dk, c.d);
  if (wrong.empty()) wrong = difference("dtemperature", truth.dtemperature, got.dtemperature, 1);
  if (wrong.empty()) wrong = difference("neg_mean", truth.mean, got.mean, 1);
  if (wrong.empty()) wrong = difference("pos", truth.pos, got.pos, 1);
  if (wrong.empty()) wrong = difference("unmixed neg_log_mean_exp", truth.unmixed, got.unmixed, 1);
  if (wrong.empty() && truth.greater != got.greater) wrong = "n_greater is wrong";
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto most = static_cast<size_t>(std::atoi(argv[1]));
  int patience = std::atoi(argv[2]);
  size_t turn = 0;
  bool failed = false;
  for (const Case& c : kCases)
    for (size_t s = 0; s < std::size(hostcuda::kSchedules) && turn < most; ++s, ++turn) {
      hostcuda::Options options = hostcuda::options();
      options.schedule = hostcuda::kSchedules[s];
      options.seed = turn;
      options.quiet = true;
      hostcuda::set_options(options);
      const std::string wrong = check(c);
      if (wrong.empty()) continue;
      if (!failed)
        std::printf("%s\n  %lld x %lld x %lld, preset %d\n", wrong.c_str(), static_cast<long long>(c.n),
                    static_cast<long long>(c.k), static_cast<long long>(c.d), c.preset);
      failed = true;
      if (--patience <= 0) return 1;
    }
  if (!failed) std::printf("%zu calls are right\n", turn);
  return failed;
}
