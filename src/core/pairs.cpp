#include "core/pairs.h"

#include <cmath>

#include "core/args.h"
#include "core/status.h"
#include "core/types.h"
#include "core/versioned.h"

namespace fnce {
namespace {

static_assert(sizeof(fnce_pairs) >= kFirstPairsSize);

// An array that is there exactly if the problem declares it.
void check_declared(const void* pointer, bool declared, size_t alignment, const char* field, const char* allowed) {
  if (declared) return require_pointer(pointer, alignment, field, allowed);
  if (pointer != nullptr) invalid(field, "not NULL", "NULL, since the problem does not declare it");
}

void check_inputs(const fnce_pairs& p, const Problem& problem) {
  const size_t alignment = alignment_of(problem.raw().feature_type);
  require_pointer(p.x_a, alignment, "pairs.x_a", "device memory of [n,d] features");
  require_pointer(p.x_b, alignment, "pairs.x_b", "device memory of [n,d] features");
  check_alignment(p.weight, 4, "pairs.weight");
  const char* ids = "device memory of [n] int64 ids, as problem.id_mask is 1";
  check_declared(p.a_ids, problem.has_ids(), 8, "pairs.a_ids", ids);
  check_declared(p.b_ids, problem.has_ids(), 8, "pairs.b_ids", ids);
  const char* bias = "device memory of [n] float32 biases, as problem.column_bias is 1";
  check_declared(p.a_bias, problem.has_bias(), 4, "pairs.a_bias", bias);
  check_declared(p.b_bias, problem.has_bias(), 4, "pairs.b_bias", bias);
}

void check_outputs(const fnce_pairs& p, const Problem& problem, bool backward) {
  check_alignment(p.loss, 4, "pairs.loss");
  check_alignment(p.a_log_sum_exp, 4, "pairs.a_log_sum_exp");
  check_alignment(p.b_log_sum_exp, 4, "pairs.b_log_sum_exp");
  const size_t alignment = alignment_of(problem.raw().gradient_type);
  check_alignment(p.da, alignment, "pairs.da");
  check_alignment(p.db, alignment, "pairs.db");
  check_alignment(p.dtemperature, 4, "pairs.dtemperature");
  if (!backward) return;
  const char* written = "device memory of [n] numbers that fnce_symmetric wrote";
  require_pointer(p.a_log_sum_exp, 4, "pairs.a_log_sum_exp", written);
  require_pointer(p.b_log_sum_exp, 4, "pairs.b_log_sum_exp", written);
}

}  // namespace

fnce_pairs default_pairs() {
  fnce_pairs p = {};
  p.struct_size = sizeof p;
  p.temperature = default_args().temperature;
  p.epsilon = default_args().epsilon;
  return p;
}

fnce_pairs check_pairs(const fnce_pairs* pairs, const Problem& problem, bool backward, bool host_memory) {
  fnce_pairs p = read_versioned(pairs, default_pairs(), kFirstPairsSize, "pairs");
  if (p.checks & ~FNCE_CHECK_POINTERS)
    invalid("pairs.checks", to_text(int64_t{p.checks}), "FNCE_CHECK_POINTERS (2) or 0");
  if (p.reserved != 0) unsupported("pairs.reserved", to_text(int64_t{p.reserved}), "0");
  check_alignment(p.temperature_pointer, 4, "pairs.temperature_pointer");
  const bool by_pointer = p.temperature_pointer != nullptr;
  if (by_pointer && host_memory) {
    p.temperature = *p.temperature_pointer;
    p.temperature_pointer = nullptr;
  }
  if (!p.temperature_pointer && !(p.temperature > 0 && std::isfinite(p.temperature)))
    invalid(by_pointer ? "pairs.*temperature_pointer" : "pairs.temperature", to_text(double{p.temperature}),
            "finite numbers > 0");
  check_epsilon(p.epsilon, "pairs.epsilon");
  check_inputs(p, problem);
  check_outputs(p, problem, backward);
  return p;
}

}  // namespace fnce
