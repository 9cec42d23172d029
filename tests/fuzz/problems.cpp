// Problems, and which of them are valid.
#include "fuzz/problems.h"

#include <cstddef>
#include <cstdint>
#include <limits>

namespace fuzz {
namespace {

constexpr int64_t kMaxRows = 2147483647, kMaxFeatures = 1 << 20, kMaxRowOffset = int64_t{1} << 32;

void read_mixing(Input& in, fnce_problem& p) {
  p.lambda_pos = static_cast<int32_t>(in.small(0, 4));
  p.lambda_neg = static_cast<int32_t>(in.small(0, 4));
  const bool pos = p.lambda_pos != FNCE_LAMBDA_NONE, neg = p.lambda_neg != FNCE_LAMBDA_NONE;
  p.lambda_pos_source = pos && in.rarely(80) ? FNCE_GIVEN : FNCE_SAMPLED;
  p.lambda_neg_source = neg && in.rarely(80) ? FNCE_GIVEN : FNCE_SAMPLED;
  p.permutation_source = neg && in.rarely(60) ? FNCE_GIVEN : FNCE_SAMPLED;
  p.renormalize_pos = pos && in.rarely(80);
  p.renormalize_neg = neg && in.rarely(80);
  p.columns =
      neg ? in.pick({FNCE_COLUMNS_MIXED, FNCE_COLUMNS_UNION}) : in.pick({FNCE_COLUMNS_QUEUE, FNCE_COLUMNS_MIXED});
}

// Blocks of the permutation, and a shard of a larger queue.
void read_shard(Input& in, fnce_problem& p) {
  if (p.permutation_source == FNCE_GIVEN || !in.rarely(100)) return;
  p.perm_block = 16 * in.small(1, 4);
  if (!in.rarely(160)) return;
  p.column_offset = p.perm_block * in.small(0, 9);
  p.k_global = p.column_offset + p.k;
  if (p.k % p.perm_block == 0) p.k_global += in.small(0, 99);
}

// Columns beyond the queue, and what leaves columns out.
void read_columns(Input& in, fnce_problem& p) {
  if (!in.rarely(110)) return;
  p.batch_columns = in.small(0, 40);
  p.id_mask = in.rarely(128);
  p.column_bias = in.rarely(80);
  p.margin_mask = in.rarely(60);
  p.form = in.rarely(80) ? FNCE_FORM_DECOUPLED : FNCE_FORM_INFO_NCE;
}

// A batch of pairs in place of all that.
void read_pairs(Input& in, fnce_problem& p) {
  if (!in.rarely(25)) return;
  p.form = FNCE_FORM_SYMMETRIC;
  p.k = p.k_global = p.column_offset = p.batch_columns = 0;
  p.lambda_pos = p.lambda_neg = p.lambda_pos_source = p.lambda_neg_source = p.permutation_source = 0;
  p.renormalize_pos = p.renormalize_neg = p.columns = p.margin_mask = p.scores = 0;
}

void spoil_field(Input& in, fnce_problem& p) {
  int64_t* const sizes[] = {
      &p.n, &p.k, &p.d, &p.k_global, &p.row_offset, &p.column_offset, &p.perm_block, &p.batch_columns};
  constexpr size_t kSizes = sizeof sizes / sizeof *sizes;
  constexpr size_t kChoices =
      (offsetof(fnce_problem, batch_columns) - offsetof(fnce_problem, device)) / sizeof(int32_t);
  const size_t field = in.byte() % (kSizes + kChoices);
  const int64_t value = read_odd_number(in);
  if (field < kSizes)
    *sizes[field] = value;
  else
    (&p.device)[field - kSizes] = static_cast<int32_t>(value);
}

bool within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

bool choices_valid(const fnce_problem& p) {
  const auto flag = [](int32_t value) { return value == 0 || value == 1; };
  const auto type = [](int32_t value) { return within(value, FNCE_FLOAT32, FNCE_BFLOAT16); };
  return p.device == FNCE_CPU && p.device_index == 0 && type(p.feature_type) && type(p.queue_type) &&
         type(p.gradient_type) && flag(p.precision) && flag(p.normalize) && flag(p.renormalize_pos) &&
         flag(p.renormalize_neg) && flag(p.lambda_pos_source) && flag(p.lambda_neg_source) &&
         flag(p.permutation_source) && within(p.lambda_pos, 0, 4) && within(p.lambda_neg, 0, 4) &&
         within(p.columns, 0, 2) && flag(p.anchor) && within(p.reduction, 0, 2) && within(p.scores, 0, 3) &&
         within(p.threads, 0, 1024) && within(p.form, 0, 2) && flag(p.id_mask) && flag(p.column_bias) &&
         flag(p.margin_mask) && p.reserved == 0;
}

bool mixing_valid(const fnce_problem& p) {
  if (p.lambda_pos == FNCE_LAMBDA_NONE && (p.renormalize_pos || p.lambda_pos_source != FNCE_SAMPLED)) return false;
  if (p.lambda_neg != FNCE_LAMBDA_NONE) return p.columns != FNCE_COLUMNS_QUEUE;
  return !p.renormalize_neg && p.lambda_neg_source == FNCE_SAMPLED && p.permutation_source == FNCE_SAMPLED &&
         p.columns != FNCE_COLUMNS_UNION;
}

bool pairs_valid(const fnce_problem& p) {
  return p.form != FNCE_FORM_SYMMETRIC || (p.k == 0 && p.k_global == 0 && p.batch_columns == 0 && p.lambda_pos == 0 &&
                                           p.lambda_neg == 0 && p.margin_mask == 0 && p.scores == 0);
}

Verdict judge_shard(const fnce_problem& p) {
  const int64_t k_global = p.k_global == 0 ? p.k : p.k_global;
  const bool shard = p.k < k_global;
  if (p.lambda_neg == FNCE_LAMBDA_NONE)
    return p.perm_block > 0 && p.column_offset % p.perm_block != 0 ? Verdict::kEither : Verdict::kAccepted;
  if (p.permutation_source == FNCE_GIVEN) return p.perm_block == 0 && !shard ? Verdict::kAccepted : Verdict::kRefused;
  if (!shard) return Verdict::kAccepted;
  if (p.k == 0) return Verdict::kEither;
  if (p.perm_block == 0 || p.column_offset % p.perm_block != 0) return Verdict::kRefused;
  const int64_t end = p.column_offset + p.k;
  return end % p.perm_block == 0 || end == k_global ? Verdict::kAccepted : Verdict::kRefused;
}

}  // namespace

int64_t read_odd_number(Input& in) {
  switch (in.byte() % 6) {
    case 0: return in.small(-2, 5);
    case 1: return in.pick<int64_t>({kMaxRows, kMaxRows + 1, kMaxRows - 1, kMaxRowOffset, kMaxRowOffset + 1});
    case 2: return in.pick<int64_t>({kMaxFeatures, kMaxFeatures + 1, 1024, 1025, 16, 2147483632});
    case 3:
      return in.pick<int64_t>(
          {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(), -1, int64_t{1} << 40});
    case 4: return in.raw<int32_t>();
    default: return in.raw<int64_t>();
  }
}

int32_t read_type(Input& in) { return in.pick({FNCE_FLOAT32, FNCE_FLOAT32, FNCE_FLOAT16, FNCE_BFLOAT16}); }

fnce_problem read_problem(Input& in) {
  fnce_problem p;
  if (fnce_problem_init(&p, sizeof p, FNCE_PRESET_MOCO) != FNCE_OK) p = {};
  p.n = in.small(1, 20);
  p.k = in.rarely(40) ? in.small(0, 255) : in.small(0, 40);
  p.d = in.rarely(40) ? in.small(1, 120) : in.small(1, 20);
  read_mixing(in, p);
  read_shard(in, p);
  p.feature_type = read_type(in);
  p.queue_type = read_type(in);
  p.gradient_type = read_type(in);
  p.normalize = !in.rarely(60);
  p.anchor = in.pick({FNCE_ANCHOR_MIXED, FNCE_ANCHOR_QUERY});
  p.reduction = in.pick({FNCE_REDUCTION_MEAN, FNCE_REDUCTION_NONE, FNCE_REDUCTION_SUM});
  p.scores = static_cast<int32_t>(in.small(0, 3));
  p.precision = in.rarely(40);
  p.threads = in.rarely(20) ? static_cast<int32_t>(in.small(0, 4)) : 1;
  if (in.rarely(60)) p.row_offset = in.pick<int64_t>({1, 7, kMaxRowOffset, kMaxRows});
  read_columns(in, p);
  read_pairs(in, p);
  if (in.rarely(50))
    for (int64_t spoils = in.small(1, 3); spoils > 0; --spoils) spoil_field(in, p);
  return p;
}

Verdict judge(const fnce_problem& p) {
  const int64_t k_global = p.k_global == 0 ? p.k : p.k_global;
  const bool sizes = within(p.n, 1, kMaxRows) && within(p.k, 0, kMaxRows) && within(p.d, 1, kMaxFeatures) &&
                     within(k_global, p.k, kMaxRows) && within(p.row_offset, 0, kMaxRowOffset) &&
                     within(p.column_offset, 0, k_global - p.k) && within(p.perm_block, 0, kMaxRows) &&
                     p.perm_block % 16 == 0 && within(p.batch_columns, 0, kMaxRows);
  if (!sizes || !choices_valid(p) || !mixing_valid(p) || !pairs_valid(p)) return Verdict::kRefused;
  return judge_shard(p);
}

bool runs_quickly(const fnce_problem& p) {
  return p.n <= 64 && p.k <= 300 && p.batch_columns <= 300 && p.d <= 130 &&
         p.n * p.d * (p.k + p.batch_columns + 1) <= 20000 && p.threads <= 4;
}

size_t element_size(int32_t type) { return type == FNCE_FLOAT32 ? 4 : 2; }

}  // namespace fuzz
