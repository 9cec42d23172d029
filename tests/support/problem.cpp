// Cases on the device: building, running, gathering.
#include "support/problem.h"

#include <flashnce/flashnce.hpp>

#include <cmath>
#include <stdexcept>

// Programs that compare libraries run with older ones.
#pragma weak fnce_columns_backward

namespace support {
namespace {

template <class Memory>
auto pointer_or_null(const Memory& memory) {
  return memory.count() > 0 ? memory.get() : nullptr;
}

int64_t loss_count(const fnce_problem& p) { return p.reduction == FNCE_REDUCTION_NONE ? p.n : 1; }

}  // namespace

Case make_case(int32_t preset, int64_t n, int64_t k, int64_t d) {
  Case c;
  require_ok(fnce_problem_init(&c.problem, sizeof c.problem, preset));
  require_ok(fnce_args_init(&c.numbers, sizeof c.numbers));
  c.problem.n = n;
  c.problem.k = k;
  c.problem.d = d;
  c.problem.device = device().kind();
  c.problem.device_index = device().index();
  return c;
}

void set_types(Case& c, int32_t feature, int32_t queue, int32_t gradient) {
  c.problem.feature_type = feature;
  c.problem.queue_type = queue;
  c.problem.gradient_type = gradient;
}

void require_ok(fnce_status status) {
  if (status == FNCE_OK) return;
  throw std::runtime_error(std::string(fnce_status_string(status)) + ": " + fnce_last_error());
}

Plan::Plan(const fnce_problem& problem) { require_ok(fnce_plan_create(&problem, &plan_)); }

fnce_plan_info Plan::info() const {
  fnce_plan_info info;
  require_ok(fnce_plan_get_info(plan_, &info, sizeof info));
  return info;
}

size_t Plan::workspace_bytes() const {
  size_t bytes = 0;
  require_ok(fnce_plan_workspace(plan_, &bytes));
  return bytes;
}

StatisticsBuffers::StatisticsBuffers(int64_t rows, bool of_loss, bool with_bias)
    : of_loss_(of_loss),
      pos_(rows),
      mean_(rows),
      variance_(rows),
      min_(rows),
      max_(rows),
      log_mean_exp_(rows),
      entropy_(of_loss && !with_bias ? rows : 0),
      dq_norm_(of_loss ? rows : 0),
      count_(rows),
      greater_(rows),
      greater_equal_(rows) {}

fnce_score_buffers StatisticsBuffers::pointers() const {
  return {pointer_or_null(pos_),          pointer_or_null(count_),   pointer_or_null(mean_),
          pointer_or_null(variance_),     pointer_or_null(min_),     pointer_or_null(max_),
          pointer_or_null(log_mean_exp_), pointer_or_null(greater_), pointer_or_null(greater_equal_),
          pointer_or_null(entropy_),      pointer_or_null(dq_norm_), {}};
}

Statistics StatisticsBuffers::values() const {
  Statistics s;
  s.pos = pos_.values();
  s.neg_mean = mean_.values();
  s.neg_variance = variance_.values();
  s.neg_min = min_.values();
  s.neg_max = max_.values();
  s.neg_log_mean_exp = log_mean_exp_.values();
  s.entropy = entropy_.values();
  s.dq_norm = dq_norm_.values();
  s.neg_count = count_.values();
  s.n_greater = greater_.values();
  s.n_greater_equal = greater_equal_.values();
  return s;
}

bool StatisticsBuffers::guards_intact() const {
  for (const auto* buffer : {&pos_, &mean_, &variance_, &min_, &max_, &log_mean_exp_, &entropy_, &dq_norm_})
    if (!buffer->guards_intact()) return false;
  return count_.guards_intact() && greater_.guards_intact() && greater_equal_.guards_intact();
}

bool StatisticsBuffers::untouched() const {
  for (const auto* buffer : {&pos_, &mean_, &variance_, &min_, &max_, &log_mean_exp_, &entropy_, &dq_norm_})
    if (!buffer->untouched()) return false;
  return count_.untouched() && greater_.untouched() && greater_equal_.untouched();
}

Call::Call(const Case& c)
    : args(c.numbers),
      arrays_(c.arrays),
      numbers_(c.numbers),
      rows_(c.problem.n),
      x_q_(c.problem.feature_type, c.arrays.x_q, c.skew),
      x_k_(c.problem.feature_type, c.arrays.x_k, c.skew),
      queue_(c.problem.queue_type, c.arrays.queue, c.skew),
      x_c_(c.problem.feature_type, c.arrays.x_c, c.skew),
      weight_(c.arrays.weight, c.skew),
      lambda_pos_(c.arrays.lambda_pos, c.skew),
      lambda_neg_(c.arrays.lambda_neg, c.skew),
      permutation_(c.arrays.permutation, c.skew),
      query_ids_(c.arrays.query_ids, 2 * c.skew),
      column_ids_(c.arrays.column_ids, 2 * c.skew),
      batch_ids_(c.arrays.batch_ids, 2 * c.skew),
      column_bias_(c.arrays.column_bias, c.skew),
      batch_bias_(c.arrays.batch_bias, c.skew),
      upstream_(c.arrays.upstream, c.skew),
      floats_(std::vector<float>{numbers_.temperature, numbers_.alpha_pos, numbers_.shift_pos, numbers_.alpha_neg,
                                 numbers_.shift_neg}),
      integers_(std::vector<uint64_t>{numbers_.seed, numbers_.offset}),
      dq_(c.problem.gradient_type, c.want.dq ? c.problem.n * c.problem.d : 0, c.skew),
      dk_(c.problem.gradient_type, c.want.dk ? c.problem.n * c.problem.d : 0, c.skew),
      dx_c_(c.problem.gradient_type, c.want.dx_c ? c.problem.batch_columns * c.problem.d : 0, c.skew),
      loss_(c.want.loss ? loss_count(c.problem) : 0, c.skew),
      dtemperature_rows_(c.want.dtemperature_rows ? c.problem.n : 0, c.skew),
      dtemperature_(c.want.dtemperature ? 1 : 0, c.skew),
      log_sum_exp_(c.want.log_sum_exp || dx_c_.count() > 0 ? c.problem.n : 0, c.skew),
      mixed_(c.problem.scores & FNCE_SCORES_MIXED ? rows_ : 0, true, c.problem.column_bias != 0),
      unmixed_(c.problem.scores & FNCE_SCORES_UNMIXED ? rows_ : 0, false) {
  args.x_q = x_q_.get();
  args.x_k = x_k_.get();
  args.queue = pointer_or_null(queue_);
  args.weight = pointer_or_null(weight_);
  args.lambda_pos = pointer_or_null(lambda_pos_);
  args.lambda_neg = pointer_or_null(lambda_neg_);
  args.permutation = pointer_or_null(permutation_);
  args.x_c = pointer_or_null(x_c_);
  args.query_ids = pointer_or_null(query_ids_);
  args.column_ids = pointer_or_null(column_ids_);
  args.batch_ids = pointer_or_null(batch_ids_);
  args.column_bias = pointer_or_null(column_bias_);
  args.batch_bias = pointer_or_null(batch_bias_);
  args.loss = pointer_or_null(loss_);
  args.dq = pointer_or_null(dq_);
  args.dk = pointer_or_null(dk_);
  args.dtemperature_rows = pointer_or_null(dtemperature_rows_);
  args.dtemperature = pointer_or_null(dtemperature_);
  args.log_sum_exp = pointer_or_null(log_sum_exp_);
  args.mixed = mixed_.pointers();
  args.unmixed = unmixed_.pointers();
  if (!c.numbers_by_pointer) return;
  args.temperature_pointer = floats_.get();
  args.alpha_pos_pointer = floats_.get() + 1;
  args.shift_pos_pointer = floats_.get() + 2;
  args.alpha_neg_pointer = floats_.get() + 3;
  args.shift_neg_pointer = floats_.get() + 4;
  args.seed_pointer = integers_.get();
  args.offset_pointer = integers_.get() + 1;
  // What stands beside a pointer must not be read.
  args.temperature = args.alpha_pos = args.alpha_neg = args.shift_pos = args.shift_neg = NAN;
  args.seed = 0x5eed5eed5eed5eedull;
  args.offset = 3;
}

void Call::run_backward(const Plan& plan, const fnce_anchors* anchors, const Buffer<unsigned char>& workspace) {
  const Outputs before = outputs();
  require_ok(columns_backward(plan, args, anchors, log_sum_exp_.get(), upstream_, dx_c_.get(), workspace));
  Outputs after = outputs();
  after.dx_c = before.dx_c;
  if (!same_bits(before, after)) throw std::runtime_error("fnce_columns_backward wrote an output of the loss");
}

Outputs Call::outputs() const {
  Outputs out;
  out.loss = loss_.values();
  out.dq = dq_.values();
  out.dk = dk_.values();
  out.dtemperature_rows = dtemperature_rows_.values();
  out.dtemperature = dtemperature_.values();
  out.log_sum_exp = log_sum_exp_.values();
  out.dx_c = dx_c_.values();
  out.mixed = mixed_.values();
  out.unmixed = unmixed_.values();
  return out;
}

bool Call::outputs_untouched() const {
  return loss_.untouched() && dq_.untouched() && dk_.untouched() && dtemperature_rows_.untouched() &&
         dtemperature_.untouched() && log_sum_exp_.untouched() && dx_c_.untouched() && mixed_.untouched() &&
         unmixed_.untouched();
}

void Call::check_memory() const {
  for (const auto* array : {&x_q_, &x_k_, &queue_, &x_c_, &dq_, &dk_, &dx_c_})
    if (!array->guards_intact()) throw std::runtime_error("a guard zone was overwritten");
  for (const auto* buffer : {&weight_, &lambda_pos_, &lambda_neg_, &floats_, &loss_, &dtemperature_rows_,
                             &dtemperature_, &log_sum_exp_, &column_bias_, &batch_bias_, &upstream_})
    if (!buffer->guards_intact()) throw std::runtime_error("a guard zone was overwritten");
  for (const auto* buffer : {&query_ids_, &column_ids_, &batch_ids_})
    if (!buffer->guards_intact()) throw std::runtime_error("a guard zone was overwritten");
  if (!mixed_.guards_intact() || !unmixed_.guards_intact() || !permutation_.guards_intact() ||
      !integers_.guards_intact())
    throw std::runtime_error("a guard zone of the statistics was overwritten");
  const bool unchanged = x_q_.holds(arrays_.x_q) && x_k_.holds(arrays_.x_k) && queue_.holds(arrays_.queue) &&
                         weight_.holds(arrays_.weight) && lambda_pos_.holds(arrays_.lambda_pos) &&
                         lambda_neg_.holds(arrays_.lambda_neg) && permutation_.holds(arrays_.permutation) &&
                         x_c_.holds(arrays_.x_c) && query_ids_.holds(arrays_.query_ids) &&
                         column_ids_.holds(arrays_.column_ids) && batch_ids_.holds(arrays_.batch_ids) &&
                         column_bias_.holds(arrays_.column_bias) && batch_bias_.holds(arrays_.batch_bias) &&
                         upstream_.holds(arrays_.upstream);
  if (!unchanged) throw std::runtime_error("an input was changed");
}

Buffer<unsigned char> make_workspace(const Plan& plan, unsigned char garbage) {
  return Buffer<unsigned char>(std::vector<unsigned char>(plan.workspace_bytes(), garbage));
}

Outputs run_loss(const Case& c, const Plan& plan, unsigned char garbage) {
  Call call(c);
  const Buffer<unsigned char> workspace = make_workspace(plan, garbage);
  require_ok(fnce_loss(plan.get(), &call.args, workspace.get(), workspace.bytes(), device().stream()));
  if (c.want.dx_c && c.problem.batch_columns > 0) call.run_backward(plan, nullptr, workspace);
  call.check_memory();
  if (!workspace.guards_intact()) throw std::runtime_error("the workspace was overrun");
  return call.outputs();
}

fnce_status columns_backward(const Plan& plan, const fnce_args& args, const fnce_anchors* anchors,
                             const float* log_sum_exp, const Buffer<float>& upstream, void* dx_c,
                             const Buffer<unsigned char>& workspace) {
  if (!fnce_columns_backward) throw std::runtime_error("the library has no fnce_columns_backward");
  return fnce_columns_backward(plan.get(), &args, anchors, log_sum_exp, upstream.get(), upstream.count(), dx_c,
                               workspace.get(), workspace.bytes(), device().stream());
}

Outputs run_loss(const Case& c, unsigned char garbage) { return run_loss(c, Plan(c.problem), garbage); }

Statistics run_scores(const Case& c) {
  const Plan plan(c.problem);
  Call call(c);
  const StatisticsBuffers out(c.problem.n, false);
  const fnce_score_buffers pointers = out.pointers();
  const Buffer<unsigned char> workspace = make_workspace(plan);
  require_ok(fnce_scores(plan.get(), &call.args, &pointers, workspace.get(), workspace.bytes(), device().stream()));
  call.check_memory();
  if (!workspace.guards_intact() || !out.guards_intact()) throw std::runtime_error("fnce_scores overran its memory");
  if (!call.outputs_untouched()) throw std::runtime_error("fnce_scores wrote an output of the loss");
  return out.values();
}

std::vector<float> lambda_pos_of(const Case& c) {
  const fnce_problem& p = c.problem;
  if (p.lambda_pos == FNCE_LAMBDA_NONE || p.lambda_pos_source == FNCE_GIVEN) return c.arrays.lambda_pos;
  std::vector<float> lambda(static_cast<size_t>(flashnce::lambda_count(p.lambda_pos, p.n, p.d)));
  require_ok(fnce_sample_lambda_pos(&p, &c.numbers, lambda.data(), static_cast<int64_t>(lambda.size())));
  return lambda;
}

std::vector<float> lambda_neg_of(const Case& c) {
  const fnce_problem& p = c.problem;
  if (p.lambda_neg == FNCE_LAMBDA_NONE || p.lambda_neg_source == FNCE_GIVEN) return c.arrays.lambda_neg;
  std::vector<float> lambda(static_cast<size_t>(flashnce::lambda_count(p.lambda_neg, p.k, p.d)));
  require_ok(fnce_sample_lambda_neg(&p, &c.numbers, lambda.data(), static_cast<int64_t>(lambda.size())));
  return lambda;
}

std::vector<int32_t> permutation_of(const Case& c) {
  const fnce_problem& p = c.problem;
  if (p.lambda_neg == FNCE_LAMBDA_NONE || p.permutation_source == FNCE_GIVEN) return c.arrays.permutation;
  std::vector<int32_t> permutation(static_cast<size_t>(p.k));
  require_ok(fnce_permutation(&p, &c.numbers, permutation.data(), p.k));
  return permutation;
}

bool same_bits(const Statistics& a, const Statistics& b) {
  return same_bits(a.pos, b.pos) && same_bits(a.neg_mean, b.neg_mean) && same_bits(a.neg_variance, b.neg_variance) &&
         same_bits(a.neg_min, b.neg_min) && same_bits(a.neg_max, b.neg_max) &&
         same_bits(a.neg_log_mean_exp, b.neg_log_mean_exp) && same_bits(a.entropy, b.entropy) &&
         same_bits(a.dq_norm, b.dq_norm) && same_bits(a.neg_count, b.neg_count) &&
         same_bits(a.n_greater, b.n_greater) && same_bits(a.n_greater_equal, b.n_greater_equal);
}

bool same_bits(const Outputs& a, const Outputs& b) {
  return same_bits(a.loss, b.loss) && same_bits(a.dq, b.dq) && same_bits(a.dk, b.dk) &&
         same_bits(a.dtemperature_rows, b.dtemperature_rows) && same_bits(a.dtemperature, b.dtemperature) &&
         same_bits(a.log_sum_exp, b.log_sum_exp) && same_bits(a.dx_c, b.dx_c) && same_bits(a.mixed, b.mixed) &&
         same_bits(a.unmixed, b.unmixed);
}

}  // namespace support
