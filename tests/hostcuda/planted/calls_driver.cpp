// Runs whole calls on the harness's device and compares them with the oracle by the tolerance policy: calls_driver
// <most cases> <wrong ones to bear>. Ends like main_driver. planted.py builds it with a bug in a kernel of kernels/rows
// or kernels/engines/plain.
#include <flashnce/flashnce.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "hostcuda/launch.h"
#include "support/compare.h"
#include "support/random_case.h"

namespace {

struct Shape {
  int64_t n, k, d;
  int32_t preset = FNCE_PRESET_FT;
  int32_t lambda = -1;  // granularity of both mixings where not the preset's
  bool renormalizes = false, statistics = false;
};

// Several splits, several tiles, one row and many; every way of mixing.
constexpr Shape kShapes[] = {
    {7, 2100, 40, FNCE_PRESET_FT, -1, false, true},
    {5, 300, 150, FNCE_PRESET_FT, FNCE_LAMBDA_DIMENSION, true, true},
    {9, 130, 33, FNCE_PRESET_FT_ELEMENTWISE, -1, true, false},
    {3, 700, 130, FNCE_PRESET_FT, FNCE_LAMBDA_ROW, true, true},
    {17, 140, 64, FNCE_PRESET_MOCO, -1, false, true},
    {1, 1, 3},
    {4, 0, 20},
};

support::Case make_case(const Shape& s) {
  support::Case c = support::make_case(s.preset, s.n, s.k, s.d);
  c.problem.device = FNCE_CUDA;
  c.problem.reduction = FNCE_REDUCTION_NONE;
  if (s.lambda >= 0) c.problem.lambda_pos = c.problem.lambda_neg = s.lambda;
  c.problem.renormalize_pos = c.problem.renormalize_neg = s.renormalizes;
  c.problem.scores = s.statistics ? FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED : FNCE_SCORES_NONE;
  c.numbers.temperature = 0.2f;
  c.numbers.seed = 11;
  support::Random random(static_cast<uint64_t>(s.n * 7919 + s.k));
  support::fill_inputs(c, random);
  return c;
}

// Results start as NaN and as -1. Arrays have no guard zones, so that a sanitizer sees who goes beyond one.
fnce_score_buffers buffers(support::Statistics& s, size_t n, bool of_loss) {
  for (auto* values :
       {&s.pos, &s.neg_mean, &s.neg_variance, &s.neg_min, &s.neg_max, &s.neg_log_mean_exp, &s.entropy, &s.dq_norm})
    values->assign(n, __builtin_nanf(""));
  for (auto* counts : {&s.neg_count, &s.n_greater, &s.n_greater_equal}) counts->assign(n, -1);
  return {s.pos.data(),
          s.neg_count.data(),
          s.neg_mean.data(),
          s.neg_variance.data(),
          s.neg_min.data(),
          s.neg_max.data(),
          s.neg_log_mean_exp.data(),
          s.n_greater.data(),
          s.n_greater_equal.data(),
          of_loss ? s.entropy.data() : nullptr,
          of_loss ? s.dq_norm.data() : nullptr,
          {}};
}

// Returns the library's sentence, or "".
std::string run(const support::Case& c, support::Outputs& out) {
  const auto n = static_cast<size_t>(c.problem.n), elements = n * static_cast<size_t>(c.problem.d);
  for (auto* values : {&out.loss, &out.dtemperature_rows}) values->assign(n, __builtin_nanf(""));
  for (auto* values : {&out.dq, &out.dk}) values->assign(elements, __builtin_nanf(""));
  out.dtemperature.assign(1, __builtin_nanf(""));
  fnce_args args = c.numbers;
  args.x_q = c.arrays.x_q.data();
  args.x_k = c.arrays.x_k.data();
  args.queue = c.problem.k > 0 ? c.arrays.queue.data() : nullptr;
  args.loss = out.loss.data();
  args.dq = out.dq.data();
  args.dk = out.dk.data();
  args.dtemperature_rows = out.dtemperature_rows.data();
  args.dtemperature = out.dtemperature.data();
  if (c.problem.scores != FNCE_SCORES_NONE) {
    args.mixed = buffers(out.mixed, n, true);
    args.unmixed = buffers(out.unmixed, n, false);
  }
  fnce_plan* plan = nullptr;
  size_t bytes = 0;
  fnce_status status = fnce_plan_create(&c.problem, &plan);
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

// "" or what is wrong.
std::string check(const support::Case& c, const support::Truth& truth) {
  support::Outputs out;
  if (const std::string failed = run(c, out); !failed.empty()) return failed;
  const support::Verdict verdict = support::compare_all(c, truth, out);
  return verdict.ok ? "" : verdict.why;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto most = static_cast<size_t>(std::atoi(argv[1]));
  int patience = std::atoi(argv[2]);
  size_t turn = 0;
  bool failed = false;
  for (const Shape& shape : kShapes) {
    const support::Case c = make_case(shape);
    const support::Truth truth(support::oracle_inputs(c));
    for (size_t s = 0; s < std::size(hostcuda::kSchedules) && turn < most; ++s, ++turn) {
      hostcuda::Options options = hostcuda::options();
      options.schedule = hostcuda::kSchedules[s];
      options.seed = turn;
      options.quiet = true;
      hostcuda::set_options(options);
      const std::string wrong = check(c, truth);
      if (wrong.empty()) continue;
      if (!failed)
        std::printf("%s\n  %lld x %lld x %lld, preset %d\n", wrong.c_str(), static_cast<long long>(shape.n),
                    static_cast<long long>(shape.k), static_cast<long long>(shape.d), shape.preset);
      failed = true;
      if (--patience <= 0) return 1;
    }
  }
  if (!failed) std::printf("%zu calls are right\n", turn);
  return failed;
}
