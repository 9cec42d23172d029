// Runs whole calls on the harness's device and compares them with the oracle by the tolerance policy: calls_driver
// <most cases> <wrong ones to bear>. Ends like main_driver. planted.py builds it with a bug in a kernel of kernels/rows
// or kernels/engines/plain.
#include <cuda_runtime_api.h>
#include <flashnce/flashnce.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "hostcuda/launch.h"
#include "support/compare.h"
#include "support/margin.h"
#include "support/random_case.h"

namespace {

struct Shape {
  int64_t n, k, d;
  int32_t preset = FNCE_PRESET_FT;
  int32_t lambda = -1;  // granularity of both mixings where not the preset's
  bool renormalizes = false, statistics = false;
  int64_t batch = 0;
  int masks = 0;  // 1: ids, a bias and a margin; 2: no ids
  bool is_union = false, decoupled = false;
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
    {18, 150, 40, FNCE_PRESET_FT, -1, false, true, 70, 1},
    {18, 150, 24, FNCE_PRESET_FT, FNCE_LAMBDA_ROW, false, true, 33, 1, true},
    {7, 90, 33, FNCE_PRESET_FT_ELEMENTWISE, -1, false, true, 20, 1, true, true},
    {9, 70, 30, FNCE_PRESET_MOCO, -1, false, false, 40},
    {33, 0, 21, FNCE_PRESET_MOCO, -1, false, true, 150, 2},
};

// Batch columns with their gradient; with masks, ids that differ in their upper halves, a bias, a margin, and a value
// that is not finite in a column of the reserved id.
void add_columns(const Shape& s, support::Random& random, support::Case& c) {
  c.problem.batch_columns = s.batch;
  if (s.is_union) c.problem.columns = FNCE_COLUMNS_UNION;
  c.problem.form = s.decoupled ? FNCE_FORM_DECOUPLED : FNCE_FORM_INFO_NCE;
  c.problem.id_mask = s.masks == 1;
  c.problem.column_bias = s.masks != 0;
  c.want.log_sum_exp = c.want.dx_c = true;
  support::fill_columns(c, random);
  c.arrays.upstream = {1.5f};
  if (s.masks == 0) return;
  if (!s.decoupled) c.arrays.upstream.clear();
  for (int64_t i = 0; !s.decoupled && i < s.n; ++i) c.arrays.upstream.push_back(i % 3 == 0 ? -1.5f : 0.5f);
  for (auto* ids : {&c.arrays.query_ids, &c.arrays.column_ids, &c.arrays.batch_ids})
    for (int64_t& id : *ids) id = random.chance(0.1) ? FNCE_NO_COLUMN : 5 + (random.below(6) << 32);
  c.problem.margin_mask = 1;
  support::choose_margin(c);
  if (s.masks != 1) return;
  c.arrays.batch_ids[3] = FNCE_NO_COLUMN;
  c.arrays.x_c[static_cast<size_t>(3 * s.d)] = __builtin_huge_valf();
}

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
  if (s.batch > 0) add_columns(s, random, c);
  return c;
}

// Results start as NaN and as -1. Arrays have no guard zones, so that a sanitizer sees who goes beyond one.
fnce_score_buffers buffers(support::Statistics& s, size_t n, bool of_loss, bool with_entropy) {
  for (auto* values :
       {&s.pos, &s.neg_mean, &s.neg_variance, &s.neg_min, &s.neg_max, &s.neg_log_mean_exp, &s.entropy, &s.dq_norm})
    values->assign(n, __builtin_nanf(""));
  if (of_loss && !with_entropy) s.entropy.clear();
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
          with_entropy ? s.entropy.data() : nullptr,
          of_loss ? s.dq_norm.data() : nullptr,
          {}};
}

template <class T>
const T* pointer_or_null(const std::vector<T>& values) {
  return values.empty() ? nullptr : values.data();
}

// The inputs and outputs of columns beyond the queue.
void add_columns(const support::Case& c, support::Outputs& out, fnce_args& args) {
  const support::Arrays& a = c.arrays;
  args.x_c = pointer_or_null(a.x_c);
  args.query_ids = pointer_or_null(a.query_ids);
  args.column_ids = pointer_or_null(a.column_ids);
  args.batch_ids = pointer_or_null(a.batch_ids);
  args.column_bias = pointer_or_null(a.column_bias);
  args.batch_bias = pointer_or_null(a.batch_bias);
  if (!c.want.dx_c) return;
  out.log_sum_exp.assign(static_cast<size_t>(c.problem.n), __builtin_nanf(""));
  out.dx_c.assign(static_cast<size_t>(c.problem.batch_columns * c.problem.d), __builtin_nanf(""));
  args.log_sum_exp = out.log_sum_exp.data();
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
    args.mixed = buffers(out.mixed, n, true, c.problem.column_bias == 0);
    args.unmixed = buffers(out.unmixed, n, false, false);
  }
  add_columns(c, out, args);
  fnce_plan* plan = nullptr;
  size_t bytes = 0;
  fnce_status status = fnce_plan_create(&c.problem, &plan);
  if (status == FNCE_OK) status = fnce_plan_workspace(plan, &bytes);
  if (status == FNCE_OK) {
    // It has the size that was asked for, so that a sanitizer sees what is beyond, and holds NaN at first.
    void* workspace = nullptr;
    if (cudaMalloc(&workspace, bytes) != cudaSuccess) return "no memory";
    status = fnce_loss(plan, &args, workspace, bytes, nullptr);
    std::memset(workspace, 0xFF, bytes);
    const std::vector<float>& upstream = c.arrays.upstream;
    if (status == FNCE_OK && c.want.dx_c)
      status = fnce_columns_backward(plan, &args, nullptr, out.log_sum_exp.data(), upstream.data(),
                                     static_cast<int64_t>(upstream.size()), out.dx_c.data(), workspace, bytes, nullptr);
    cudaFree(workspace);
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
