#include "core/args.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <string>

#include "core/status.h"
#include "core/types.h"
#include "core/versioned.h"

namespace fnce {
namespace {

static_assert(sizeof(fnce_args) >= kFirstArgsSize);

// Puts the number that the pointer points to in the place of the value, if the host can read it.
template <class T>
void resolve(T& value, const T*& pointer, const char* pointer_field, bool host_memory) {
  check_alignment(pointer, alignof(T), pointer_field);
  if (pointer == nullptr || !host_memory) return;
  value = *pointer;
  pointer = nullptr;
}

// The name under which a number is reported, which is that of the field it was read from.
std::string source(const char* field, const void* pointer) {
  return std::string("args.") + (pointer ? "*" : "") + field + (pointer ? "_pointer" : "");
}

void check_positive(float value, const char* field, const void* pointer) {
  if (!(value > 0) || !std::isfinite(value))
    invalid(source(field, pointer), to_text(double{value}), "finite numbers > 0");
}

void check_finite(float value, const char* field, const void* pointer) {
  if (!std::isfinite(value)) invalid(source(field, pointer), to_text(double{value}), "finite numbers");
}

void check_multiple_of_4(uint64_t value, const char* field, const void* pointer) {
  if (value % 4 != 0) invalid(source(field, pointer), to_text(value), "multiples of 4");
}

struct Buffer {
  const char* field;
  const void* pointer;
  size_t alignment;
};

std::array<Buffer, 11> buffers_of(const fnce_score_buffers& b) {
  return {{{"pos", b.pos, 4},
           {"neg_count", b.neg_count, 8},
           {"neg_mean", b.neg_mean, 4},
           {"neg_variance", b.neg_variance, 4},
           {"neg_min", b.neg_min, 4},
           {"neg_max", b.neg_max, 4},
           {"neg_log_mean_exp", b.neg_log_mean_exp, 4},
           {"n_greater", b.n_greater, 8},
           {"n_greater_equal", b.n_greater_equal, 8},
           {"entropy", b.entropy, 4},
           {"dq_norm", b.dq_norm, 4}}};
}

// The name of the first buffer that is there, or null.
const char* first_buffer(const fnce_score_buffers& buffers) {
  for (const Buffer& buffer : buffers_of(buffers))
    if (buffer.pointer) return buffer.field;
  return nullptr;
}

// The arguments that a kind of call uses. Inspection of draws (`arrays` false) reads numbers alone.
struct Uses {
  bool arrays = true;
  bool features = false, negatives = false;
  bool lambda_pos = false, lambda_neg = false;
  bool outputs = false;
  bool queue = true;  // the queue is one of the negatives
};

Uses uses_of(CallKind kind) {
  switch (kind) {
    case CallKind::kLoss:
      return {.features = true, .negatives = true, .lambda_pos = true, .lambda_neg = true, .outputs = true};
    case CallKind::kColumns: return {.features = true, .negatives = true, .lambda_pos = true, .queue = false};
    case CallKind::kColumnsOfAnchors: return {.negatives = true, .queue = false};
    case CallKind::kPrep: return {.features = true, .lambda_pos = true};
    case CallKind::kPartial: return {.negatives = true, .lambda_neg = true};
    case CallKind::kFinish: return {.features = true, .lambda_pos = true, .outputs = true};
    case CallKind::kScores: return {.features = true, .negatives = true};
    case CallKind::kDrawsPos: return {.arrays = false, .lambda_pos = true};
    case CallKind::kDrawsNeg: return {.arrays = false, .lambda_neg = true};
    case CallKind::kDrawsPermutation: break;
  }
  return {.arrays = false};
}

void resolve_numbers(fnce_args& a, const Problem& problem, const Uses& uses, bool host_memory) {
  const fnce_args given = a;
  resolve(a.temperature, a.temperature_pointer, "args.temperature_pointer", host_memory);
  resolve(a.alpha_pos, a.alpha_pos_pointer, "args.alpha_pos_pointer", host_memory);
  resolve(a.shift_pos, a.shift_pos_pointer, "args.shift_pos_pointer", host_memory);
  resolve(a.alpha_neg, a.alpha_neg_pointer, "args.alpha_neg_pointer", host_memory);
  resolve(a.shift_neg, a.shift_neg_pointer, "args.shift_neg_pointer", host_memory);
  resolve(a.seed, a.seed_pointer, "args.seed_pointer", host_memory);
  resolve(a.offset, a.offset_pointer, "args.offset_pointer", host_memory);
  if (uses.arrays && !a.temperature_pointer) check_positive(a.temperature, "temperature", given.temperature_pointer);
  if (uses.lambda_pos && problem.samples_lambda_pos()) {
    if (!a.alpha_pos_pointer) check_positive(a.alpha_pos, "alpha_pos", given.alpha_pos_pointer);
    if (!a.shift_pos_pointer) check_finite(a.shift_pos, "shift_pos", given.shift_pos_pointer);
  }
  if (uses.lambda_neg && problem.samples_lambda_neg()) {
    if (!a.alpha_neg_pointer) check_positive(a.alpha_neg, "alpha_neg", given.alpha_neg_pointer);
    if (!a.shift_neg_pointer) check_finite(a.shift_neg, "shift_neg", given.shift_neg_pointer);
  }
  check_epsilon(a.epsilon, "args.epsilon");
  if (!a.offset_pointer) check_multiple_of_4(a.offset, "offset", given.offset_pointer);
  check_multiple_of_4(a.offset_increment, "offset_increment", nullptr);
}

// Checks an array that must be there exactly if its source is FNCE_GIVEN.
void check_given(const void* pointer, bool mixes, int32_t lambda_source, const char* field, const char* shape) {
  if (mixes && lambda_source == FNCE_GIVEN) return require_pointer(pointer, 4, field, shape);
  if (pointer != nullptr) invalid(field, "not NULL", "NULL, since the problem does not declare it FNCE_GIVEN");
}

// Checks an array of a column's or query's attribute that must be there exactly if the problem declares it.
void check_declared(const void* pointer, bool declared, int64_t count, size_t alignment, const char* field,
                    const char* allowed) {
  if (declared && count > 0) return require_pointer(pointer, alignment, field, allowed);
  if (declared || pointer == nullptr) return;
  invalid(field, "not NULL", "NULL, since the problem does not declare it");
}

// What says of batch columns and of all columns whether they count, equations (13) to (15).
void check_columns(const fnce_args& a, const Problem& problem, bool with_queue) {
  const fnce_problem& p = problem.raw();
  const int64_t k = with_queue ? p.k : 0;
  check_declared(a.x_c, p.batch_columns > 0, p.batch_columns, alignment_of(p.feature_type), "args.x_c",
                 "device memory of [batch_columns,d] features");
  const char* declared = "device memory of int64 ids, as problem.id_mask is 1";
  check_declared(a.query_ids, problem.has_ids(), p.n, 8, "args.query_ids", declared);
  check_declared(a.column_ids, problem.has_ids(), k, 8, "args.column_ids", declared);
  check_declared(a.batch_ids, problem.has_ids(), p.batch_columns, 8, "args.batch_ids", declared);
  const char* bias = "device memory of float32 biases, as problem.column_bias is 1";
  check_declared(a.column_bias, problem.has_bias(), k, 4, "args.column_bias", bias);
  check_declared(a.batch_bias, problem.has_bias(), p.batch_columns, 4, "args.batch_bias", bias);
  if (problem.has_margin() && a.margin != a.margin) invalid("args.margin", "nan", "numbers");
}

void check_inputs(const fnce_args& a, const Problem& problem, const Uses& uses) {
  const fnce_problem& p = problem.raw();
  if (uses.features) {
    require_pointer(a.x_q, alignment_of(p.feature_type), "args.x_q", "device memory of [n,d] features");
    require_pointer(a.x_k, alignment_of(p.feature_type), "args.x_k", "device memory of [n,d] features");
  }
  if (uses.features || !uses.queue) check_alignment(a.weight, 4, "args.weight");
  if (uses.negatives) check_columns(a, problem, uses.queue);
  if (uses.negatives && uses.queue && p.k > 0)
    require_pointer(a.queue, alignment_of(p.queue_type), "args.queue", "device memory of [k,d] negatives");
  if (uses.lambda_pos)
    check_given(a.lambda_pos, problem.mixes_positives(), p.lambda_pos_source, "args.lambda_pos",
                "device memory of the granularity's shape, as problem.lambda_pos_source is FNCE_GIVEN");
  if (uses.lambda_neg) {
    check_given(p.k > 0 ? a.lambda_neg : nullptr, problem.mixes_negatives() && p.k > 0, p.lambda_neg_source,
                "args.lambda_neg",
                "device memory of the granularity's shape, as problem.lambda_neg_source is FNCE_GIVEN");
    check_given(p.k > 0 ? a.permutation : nullptr, problem.mixes_negatives() && p.k > 0, p.permutation_source,
                "args.permutation", "device memory of [k] indices, as problem.permutation_source is FNCE_GIVEN");
  }
}

void check_outputs(const fnce_args& a, const Problem& problem) {
  check_alignment(a.loss, 4, "args.loss");
  check_alignment(a.dq, alignment_of(problem.raw().gradient_type), "args.dq");
  check_alignment(a.dk, alignment_of(problem.raw().gradient_type), "args.dk");
  check_alignment(a.dtemperature_rows, 4, "args.dtemperature_rows");
  check_alignment(a.dtemperature, 4, "args.dtemperature");
  check_alignment(a.log_sum_exp, 4, "args.log_sum_exp");
  check_score_buffers(a.mixed, true, "args.mixed");
  if (problem.has_bias() && a.mixed.entropy)
    invalid("args.mixed.entropy", "not NULL", "NULL, since problem.column_bias is 1");
  check_score_buffers(a.unmixed, false, "args.unmixed");
  if (const char* field = first_buffer(a.mixed); field && !problem.gathers_mixed())
    invalid(std::string("args.mixed.") + field, "not NULL", "NULL, since problem.scores lacks FNCE_SCORES_MIXED");
  if (const char* field = first_buffer(a.unmixed); field && !problem.gathers_unmixed())
    invalid(std::string("args.unmixed.") + field, "not NULL", "NULL, since problem.scores lacks FNCE_SCORES_UNMIXED");
}

void check_reserved(const fnce_args& a) {
  if (a.checks & ~(FNCE_CHECK_PERMUTATION | FNCE_CHECK_POINTERS))
    invalid("args.checks", to_text(int64_t{a.checks}), "bits FNCE_CHECK_PERMUTATION (1), FNCE_CHECK_POINTERS (2)");
  if (a.reserved != 0) unsupported("args.reserved", to_text(int64_t{a.reserved}), "0");
  if (a.reserved2 != 0) unsupported("args.reserved2", to_text(int64_t{a.reserved2}), "0");
}

}  // namespace

fnce_args default_args() {
  fnce_args a = {};
  a.struct_size = sizeof a;
  a.temperature = 0.07f;
  a.alpha_pos = 2.0f;
  a.shift_pos = 1.0f;
  a.alpha_neg = 1.6f;
  a.epsilon = 1e-12f;
  return a;
}

Args::Args(const fnce_args* args, const Problem& problem, CallKind kind, bool host_memory)
    : raw_(read_versioned(args, default_args(), kFirstArgsSize, "args")) {
  const Uses uses = uses_of(kind);
  check_reserved(raw_);
  resolve_numbers(raw_, problem, uses, host_memory);
  if (!uses.arrays) return;
  check_inputs(raw_, problem, uses);
  if (uses.outputs) check_outputs(raw_, problem);
}

bool Args::needs_gradient() const {
  return raw_.dq || raw_.dk || raw_.dtemperature_rows || raw_.dtemperature || raw_.mixed.entropy || raw_.mixed.dq_norm;
}

void check_epsilon(float value, const char* field) {
  // Norms are float32 sums of squares, which lose their bits to underflow below this.
  if (!(value >= 1e-18f) || !std::isfinite(value)) invalid(field, to_text(double{value}), "finite numbers >= 1e-18");
}

void check_score_buffers(const fnce_score_buffers& buffers, bool loss_statistics, const char* name) {
  const auto field = [&](const char* last) { return std::string(name) + "." + last; };
  for (const Buffer& buffer : buffers_of(buffers))
    if (reinterpret_cast<uintptr_t>(buffer.pointer) % buffer.alignment != 0)
      check_alignment(buffer.pointer, buffer.alignment, field(buffer.field).c_str());
  for (const void* pointer : buffers.reserved)
    if (pointer) unsupported(field("reserved"), "not NULL", "NULL");
  if (loss_statistics) return;
  const char* allowed = "NULL: it is a statistic of the loss (args.mixed)";
  if (buffers.entropy) invalid(field("entropy"), "not NULL", allowed);
  if (buffers.dq_norm) invalid(field("dq_norm"), "not NULL", allowed);
}

bool any_buffer(const fnce_score_buffers& buffers) { return first_buffer(buffers) != nullptr; }

void check_anchors(const fnce_anchors* anchors, const Problem& problem) {
  if (anchors == nullptr) invalid("anchors", "NULL", "a pointer to a fnce_anchors");
  require_pointer(anchors->anchor, 4, "anchors.anchor", "device memory of [n,d] anchors");
  check_alignment(anchors->pos, 4, "anchors.pos");
  check_alignment(anchors->unmixed_pos, 4, "anchors.unmixed_pos");
  for (const void* pointer : anchors->reserved)
    if (pointer) unsupported("anchors.reserved", "not NULL", "NULL");
  if (problem.has_margin() && !anchors->pos)
    invalid("anchors.pos", "NULL", "device memory of [n] scores, as problem.margin_mask is 1");
  if (problem.gathers_mixed() && !anchors->pos)
    invalid("anchors.pos", "NULL", "device memory of [n] scores, as problem.scores has FNCE_SCORES_MIXED");
  if (problem.gathers_unmixed() && !anchors->unmixed_pos)
    invalid("anchors.unmixed_pos", "NULL", "device memory of [n] scores, as problem.scores has FNCE_SCORES_UNMIXED");
}

}  // namespace fnce
