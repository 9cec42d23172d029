#include "core/problem.h"

#include <cstddef>
#include <string>

#include "core/limits.h"
#include "core/status.h"
#include "core/versioned.h"

namespace fnce {
namespace {

static_assert(sizeof(fnce_problem) >= kFirstProblemSize);

void check_choice(const char* field, int32_t value, int32_t low, int32_t high, const char* names) {
  if (value < low || value > high) invalid(field, to_text(int64_t{value}), names);
}

void check_sizes(fnce_problem& p) {
  check_range("problem.n", p.n, 1, kMaxRows);
  check_range("problem.k", p.k, 0, kMaxRows);
  check_range("problem.d", p.d, 1, kMaxFeatures);
  if (p.k_global == 0) p.k_global = p.k;
  check_range("problem.k_global", p.k_global, p.k, kMaxRows);
  check_range("problem.row_offset", p.row_offset, 0, kMaxRowOffset);
  check_range("problem.column_offset", p.column_offset, 0, p.k_global - p.k);
  check_range("problem.perm_block", p.perm_block, 0, kMaxRows);
  check_range("problem.batch_columns", p.batch_columns, 0, kMaxRows);
  if (p.perm_block % 16 != 0) invalid("problem.perm_block", to_text(p.perm_block), "0 or a multiple of 16");
}

void check_choices(const fnce_problem& p) {
  check_choice("problem.device", p.device, FNCE_CPU, FNCE_CUDA, "FNCE_CPU (1), FNCE_CUDA (2)");
  check_range("problem.device_index", p.device_index, 0, p.device == FNCE_CPU ? 0 : 1023);
  const char* types = "FNCE_FLOAT32 (1), FNCE_FLOAT16 (2), FNCE_BFLOAT16 (3)";
  check_choice("problem.feature_type", p.feature_type, FNCE_FLOAT32, FNCE_BFLOAT16, types);
  check_choice("problem.queue_type", p.queue_type, FNCE_FLOAT32, FNCE_BFLOAT16, types);
  check_choice("problem.gradient_type", p.gradient_type, FNCE_FLOAT32, FNCE_BFLOAT16, types);
  check_choice("problem.precision", p.precision, FNCE_PRECISION_EXACT, FNCE_PRECISION_FAST,
               "FNCE_PRECISION_EXACT (0), FNCE_PRECISION_FAST (1)");
  const char* flag = "0, 1";
  check_choice("problem.normalize", p.normalize, 0, 1, flag);
  check_choice("problem.renormalize_pos", p.renormalize_pos, 0, 1, flag);
  check_choice("problem.renormalize_neg", p.renormalize_neg, 0, 1, flag);
  const char* granularities = "FNCE_LAMBDA_NONE (0), _CALL (1), _ROW (2), _DIMENSION (3), _ELEMENT (4)";
  check_choice("problem.lambda_pos", p.lambda_pos, FNCE_LAMBDA_NONE, FNCE_LAMBDA_ELEMENT, granularities);
  check_choice("problem.lambda_neg", p.lambda_neg, FNCE_LAMBDA_NONE, FNCE_LAMBDA_ELEMENT, granularities);
  const char* sources = "FNCE_SAMPLED (0), FNCE_GIVEN (1)";
  check_choice("problem.lambda_pos_source", p.lambda_pos_source, FNCE_SAMPLED, FNCE_GIVEN, sources);
  check_choice("problem.lambda_neg_source", p.lambda_neg_source, FNCE_SAMPLED, FNCE_GIVEN, sources);
  check_choice("problem.permutation_source", p.permutation_source, FNCE_SAMPLED, FNCE_GIVEN, sources);
  check_choice("problem.columns", p.columns, FNCE_COLUMNS_QUEUE, FNCE_COLUMNS_UNION,
               "FNCE_COLUMNS_QUEUE (0), _MIXED (1), _UNION (2)");
  check_choice("problem.anchor", p.anchor, FNCE_ANCHOR_MIXED, FNCE_ANCHOR_QUERY,
               "FNCE_ANCHOR_MIXED (0), FNCE_ANCHOR_QUERY (1)");
  check_choice("problem.reduction", p.reduction, FNCE_REDUCTION_NONE, FNCE_REDUCTION_SUM,
               "FNCE_REDUCTION_NONE (0), _MEAN (1), _SUM (2)");
  check_choice("problem.scores", p.scores, 0, FNCE_SCORES_MIXED | FNCE_SCORES_UNMIXED,
               "bits FNCE_SCORES_MIXED (1), FNCE_SCORES_UNMIXED (2)");
  check_choice("problem.form", p.form, FNCE_FORM_INFO_NCE, FNCE_FORM_SYMMETRIC,
               "FNCE_FORM_INFO_NCE (0), FNCE_FORM_DECOUPLED (1), FNCE_FORM_SYMMETRIC (2)");
  check_choice("problem.id_mask", p.id_mask, 0, 1, flag);
  check_choice("problem.column_bias", p.column_bias, 0, 1, flag);
  check_choice("problem.margin_mask", p.margin_mask, 0, 1, flag);
  check_range("problem.threads", p.threads, 0, kMaxThreads);
}

void check_mixing(const fnce_problem& p) {
  const bool mixes_pos = p.lambda_pos != FNCE_LAMBDA_NONE, mixes_neg = p.lambda_neg != FNCE_LAMBDA_NONE;
  if (!mixes_pos && p.renormalize_pos)
    invalid("problem.renormalize_pos", "1", "0 where problem.lambda_pos is FNCE_LAMBDA_NONE");
  if (!mixes_neg && p.renormalize_neg)
    invalid("problem.renormalize_neg", "1", "0 where problem.lambda_neg is FNCE_LAMBDA_NONE");
  const char* sampled_only = "FNCE_SAMPLED (0) where the granularity is FNCE_LAMBDA_NONE";
  if (!mixes_pos && p.lambda_pos_source != FNCE_SAMPLED) invalid("problem.lambda_pos_source", "1", sampled_only);
  if (!mixes_neg && p.lambda_neg_source != FNCE_SAMPLED) invalid("problem.lambda_neg_source", "1", sampled_only);
  if (!mixes_neg && p.permutation_source != FNCE_SAMPLED)
    invalid("problem.permutation_source", "1", "FNCE_SAMPLED (0) where problem.lambda_neg is FNCE_LAMBDA_NONE");
  if (mixes_neg && p.columns == FNCE_COLUMNS_QUEUE)
    invalid("problem.columns", "0 (FNCE_COLUMNS_QUEUE)",
            "FNCE_COLUMNS_MIXED, FNCE_COLUMNS_UNION where negatives are mixed");
  if (!mixes_neg && p.columns == FNCE_COLUMNS_UNION)
    invalid("problem.columns", "2 (FNCE_COLUMNS_UNION)",
            "FNCE_COLUMNS_QUEUE, FNCE_COLUMNS_MIXED where negatives are not mixed");
}

// Both sides of a batch of pairs are all the rows and columns that there are.
void check_symmetric(const fnce_problem& p) {
  if (p.form != FNCE_FORM_SYMMETRIC) return;
  const struct {
    const char* field;
    int64_t value;
  } others[] = {{"problem.k", p.k},
                {"problem.k_global", p.k_global},
                {"problem.batch_columns", p.batch_columns},
                {"problem.lambda_pos", p.lambda_pos},
                {"problem.lambda_neg", p.lambda_neg},
                {"problem.margin_mask", p.margin_mask},
                {"problem.scores", p.scores}};
  for (const auto& other : others)
    if (other.value != 0) invalid(other.field, to_text(other.value), "0 where problem.form is FNCE_FORM_SYMMETRIC (2)");
}

// Draws are made by global index, so a permutation must not leave the shard that holds its rows.
void check_shard(const fnce_problem& p) {
  if (p.lambda_neg == FNCE_LAMBDA_NONE) return;
  const bool shard = p.k < p.k_global;
  if (p.permutation_source == FNCE_GIVEN) {
    if (p.perm_block != 0)
      invalid("problem.perm_block", to_text(p.perm_block), "0 where the permutation is FNCE_GIVEN");
    if (shard) invalid("problem.k_global", to_text(p.k_global), "problem.k where the permutation is FNCE_GIVEN");
    return;
  }
  if (!shard || p.k == 0) return;
  if (p.perm_block == 0)
    invalid("problem.perm_block", "0", "a multiple of 16 where mixed negatives are sharded (k < k_global)");
  if (p.column_offset % p.perm_block != 0)
    invalid("problem.column_offset", to_text(p.column_offset), "multiples of problem.perm_block");
  const int64_t end = p.column_offset + p.k;
  if (end % p.perm_block != 0 && end != p.k_global)
    invalid("problem.k", to_text(p.k), "a whole number of blocks of problem.perm_block columns, or all that are left");
}

void check_supported(const fnce_problem& p) {
  if (p.reserved != 0) unsupported("problem.reserved", to_text(int64_t{p.reserved}), "0");
}

}  // namespace

fnce_problem preset_problem(int32_t preset) {
  check_choice("preset", preset, FNCE_PRESET_MOCO, FNCE_PRESET_FT_ELEMENTWISE,
               "FNCE_PRESET_MOCO (0), FNCE_PRESET_FT (1), FNCE_PRESET_FT_ELEMENTWISE (2)");
  fnce_problem p = {};
  p.struct_size = sizeof p;
  p.device = FNCE_CPU;
  p.feature_type = p.queue_type = p.gradient_type = FNCE_FLOAT32;
  p.normalize = 1;
  p.reduction = FNCE_REDUCTION_MEAN;
  if (preset == FNCE_PRESET_MOCO) return p;
  p.lambda_pos = p.lambda_neg = preset == FNCE_PRESET_FT ? FNCE_LAMBDA_CALL : FNCE_LAMBDA_ELEMENT;
  p.columns = FNCE_COLUMNS_MIXED;
  return p;
}

Problem::Problem(const fnce_problem* problem)
    : raw_(read_versioned(problem, preset_problem(FNCE_PRESET_MOCO), kFirstProblemSize, "problem")) {
  check_sizes(raw_);
  check_choices(raw_);
  check_mixing(raw_);
  check_shard(raw_);
  check_symmetric(raw_);
  check_supported(raw_);
}

Problem places_changed(const Problem& problem, int32_t anchor_type) {
  const fnce_problem& from = problem.raw();
  fnce_problem p = preset_problem(FNCE_PRESET_MOCO);
  p.device = from.device;
  p.device_index = from.device_index;
  p.n = from.batch_columns;
  p.k = from.n;
  p.d = from.d;
  p.feature_type = from.feature_type;
  p.queue_type = anchor_type;
  p.gradient_type = from.gradient_type;
  p.normalize = from.normalize;
  p.threads = from.threads;
  p.id_mask = from.id_mask;
  p.column_bias = 1;
  return Problem(&p);
}

int64_t Problem::lambda_count(int32_t granularity, int64_t rows) const {
  switch (granularity) {
    case FNCE_LAMBDA_CALL: return 1;
    case FNCE_LAMBDA_ROW: return rows;
    case FNCE_LAMBDA_DIMENSION: return d();
    case FNCE_LAMBDA_ELEMENT: return rows * d();
    default: return 0;
  }
}

}  // namespace fnce
