#include "core/plan_info.h"

#include <algorithm>
#include <cstring>
#include <sstream>

#include "core/status.h"
#include "core/types.h"

namespace fnce {
namespace {

static_assert(sizeof(fnce_plan_info) >= kFirstPlanInfoSize);

struct Name {
  int32_t code;
  const char* text;
};

constexpr Name kFamilies[] = {{FNCE_FAMILY_PLAIN, "plain"}, {FNCE_FAMILY_SM80, "sm80"}};

constexpr Name kCpuIsas[] = {{FNCE_CPU_ISA_BASELINE, "baseline"}, {FNCE_CPU_ISA_AVX2, "avx2"},
                             {FNCE_CPU_ISA_AVX512, "avx512"},     {FNCE_CPU_ISA_AVX512_BF16, "avx512_bf16"},
                             {FNCE_CPU_ISA_AMX, "amx"},           {FNCE_CPU_ISA_NEON, "neon"}};

constexpr Name kProducts[] = {{FNCE_PRODUCTS_FLOAT32, "float32 products"},
                              {FNCE_PRODUCTS_FLOAT16, "float16 products"},
                              {FNCE_PRODUCTS_BFLOAT16, "bfloat16 products"},
                              {FNCE_PRODUCTS_FLOAT16X3, "float16x3 products (a float32 queue, split in two)"},
                              {FNCE_PRODUCTS_FLOAT16_FAST, "float16-fast products (a float32 queue, rounded)"}};

constexpr Name kMixing[] = {{FNCE_MIXING_NONE, "negatives as they are, in the order of the queue"},
                            {FNCE_MIXING_SCORES,
                             "negatives mixed as scores (lambda per call or row and a sampled permutation: partners "
                             "lie side by side, rows are read once)"},
                            {FNCE_MIXING_WHILE_PACKED, "negatives mixed while packed"},
                            {FNCE_MIXING_BEFORE_PASS, "negatives mixed once, before the pass"}};

constexpr Name kMixingReasons[] = {
    {FNCE_REASON_NONE, ""},
    {FNCE_REASON_RENORMALIZED, " (renormalised rows cannot be mixed as scores)"},
    {FNCE_REASON_PERMUTATION_GIVEN, " (a given permutation has partners anywhere)"},
    {FNCE_REASON_LAMBDA_GRANULARITY, " (lambda per dimension or element cannot be mixed as scores)"}};

template <size_t kCount>
const char* text_of(const Name (&names)[kCount], int32_t code) {
  for (const Name& name : names)
    if (name.code == code) return name.text;
  throw StatusError(FNCE_INTERNAL_ERROR, "a plan has an unknown code " + to_text(int64_t{code}));
}

// Number and noun.
std::string counted(int64_t count, const char* noun) { return to_text(count) + " " + noun + (count == 1 ? "" : "s"); }

std::string capability_in_words(int64_t code) { return to_text(code / 10) + "." + to_text(code % 10); }

int32_t mixing_reason(const Problem& problem) {
  if (problem.raw().renormalize_neg) return FNCE_REASON_RENORMALIZED;
  if (!problem.samples_permutation()) return FNCE_REASON_PERMUTATION_GIVEN;
  return FNCE_REASON_LAMBDA_GRANULARITY;
}

void write_backend(std::ostream& text, const fnce_plan_info& info) {
  if (info.device == FNCE_CPU) {
    text << "cpu backend, " << text_of(kCpuIsas, info.cpu_isa) << " (" << info.lanes << " queries per vector, "
         << family_reason_in_words(info) << "), up to " << counted(info.threads, "thread");
    return;
  }
  text << "cuda backend, " << text_of(kFamilies, info.family) << " family (" << family_reason_in_words(info)
       << ") on device " << info.device_index << " (" << info.device_name << ", compute capability "
       << capability_in_words(info.compute_capability) << ", " << counted(info.multiprocessors, "SM") << ")";
}

void write_cuts(std::ostream& text, const fnce_plan_info& info) {
  const bool on_cpu = info.device == FNCE_CPU;
  text << counted(info.row_blocks, "row block") << " of " << (on_cpu ? "up to " : "") << info.block_rows
       << " queries x " << counted(info.splits, on_cpu ? "chunk" : "split");
  if (on_cpu) {
    const int64_t tiles = info.splits ? (info.column_tiles + info.splits - 1) / info.splits : 0;
    text << " of up to " << std::min(info.k, tiles * info.tile_columns) << " negatives";
  }
  const int64_t parts = info.tasks / std::max<int64_t>(1, info.row_blocks * info.splits);
  if (parts > 1) text << ", the rows of each in " << parts << " parts";
  text << " = " << counted(info.tasks, on_cpu ? "task" : "block") << ", tiles of " << info.tile_columns << " negatives";
  if (info.planned_multiprocessors != info.multiprocessors)
    text << ", as for " << counted(info.planned_multiprocessors, "SM") << " (FNCE_MULTIPROCESSORS says so)";
}

}  // namespace

fnce_plan_info problem_info(const Problem& problem, int32_t row_mixing, uint64_t workspace_bytes) {
  const fnce_problem& p = problem.raw();
  fnce_plan_info info = {};
  info.struct_size = sizeof info;
  info.workspace_bytes = workspace_bytes;
  info.n = p.n;
  info.k = p.k;
  info.d = p.d;
  info.device = p.device;
  info.device_index = p.device_index;
  info.columns = p.columns;
  info.feature_type = p.feature_type;
  info.queue_type = p.queue_type;
  info.gradient_type = p.gradient_type;
  if (!problem.mixes_negatives()) return info;
  info.mixing = problem.can_mix_scores() ? FNCE_MIXING_SCORES : row_mixing;
  if (info.mixing != FNCE_MIXING_SCORES) info.mixing_reason = mixing_reason(problem);
  return info;
}

int32_t cpu_isa_of(const char* name) {
  for (const Name& isa : kCpuIsas)
    if (std::strcmp(isa.text, name) == 0) return isa.code;
  return FNCE_CPU_ISA_NONE;
}

const char* family_name(int32_t code) { return text_of(kFamilies, code); }

std::string family_reason_in_words(const fnce_plan_info& info) {
  if (info.family_reason == FNCE_REASON_FORCED)
    return info.device == FNCE_CPU ? "FNCE_CPU_ISA says so" : "FNCE_BACKEND says so";
  if (info.family_reason == FNCE_REASON_NONE)
    return info.device == FNCE_CPU ? "the best of this processor" : "the best for this device";
  const std::string better = std::string("the ") + text_of(kFamilies, info.better_family) + " family";
  switch (info.family_reason) {
    case FNCE_REASON_COMPUTE_CAPABILITY:
      return better + " needs compute capability " + capability_in_words(info.family_limit);
    case FNCE_REASON_FEATURES: return better + " goes up to " + to_text(info.family_limit) + " features";
    case FNCE_REASON_MASKS: return better + " has no ids, biases and margins";
    case FNCE_REASON_SHARED_MEMORY:
      return "a block of this device has " + to_text(info.shared_memory_bytes) +
             " bytes of shared memory, the tiles of " + better + " need " + to_text(info.family_limit);
    default: throw StatusError(FNCE_INTERNAL_ERROR, "a plan has an unknown reason for its family");
  }
}

std::string describe(const fnce_plan_info& info) {
  std::ostringstream text;
  write_backend(text, info);
  text << "; " << info.n << " queries x " << info.k << " negatives x " << info.d << " features; features in "
       << type_name(info.feature_type) << ", queue in " << type_name(info.queue_type) << ", gradients in "
       << type_name(info.gradient_type) << ", " << text_of(kProducts, info.products);
  if (info.fallback_family)
    text << ", by the " << text_of(kFamilies, info.fallback_family) << " family where float16 cannot hold the queue";
  text << "; " << text_of(kMixing, info.mixing) << text_of(kMixingReasons, info.mixing_reason)
       << (info.columns == FNCE_COLUMNS_UNION ? ", raw negatives beside them from the same pass" : "") << "; ";
  write_cuts(text, info);
  text << "; workspace " << info.workspace_bytes << " bytes";
  return text.str();
}

}  // namespace fnce
