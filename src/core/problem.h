// A fnce_problem that has been checked: valid by construction, with the questions the rest of the library asks of it.
#pragma once
#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>

namespace fnce {

// sizeof(fnce_problem) of the first version; pinned.
constexpr size_t kFirstProblemSize = 160;

fnce_problem preset_problem(int32_t preset);

class Problem {
 public:
  // Checks everything that is fixed per plan. Throws StatusError.
  explicit Problem(const fnce_problem* problem);

  const fnce_problem& raw() const { return raw_; }
  int64_t n() const { return raw_.n; }
  int64_t k() const { return raw_.k; }
  int64_t d() const { return raw_.d; }
  // C, the batch columns.
  int64_t batch_columns() const { return raw_.batch_columns; }
  // Negatives over all shards.
  int64_t k_global() const { return raw_.k_global; }

  bool mixes_positives() const { return raw_.lambda_pos != FNCE_LAMBDA_NONE; }
  bool mixes_negatives() const { return raw_.lambda_neg != FNCE_LAMBDA_NONE; }
  bool samples_lambda_pos() const { return mixes_positives() && raw_.lambda_pos_source == FNCE_SAMPLED; }
  bool samples_lambda_neg() const { return mixes_negatives() && raw_.lambda_neg_source == FNCE_SAMPLED; }
  bool samples_permutation() const { return mixes_negatives() && raw_.permutation_source == FNCE_SAMPLED; }
  bool gathers_mixed() const { return (raw_.scores & FNCE_SCORES_MIXED) != 0; }
  bool gathers_unmixed() const { return (raw_.scores & FNCE_SCORES_UNMIXED) != 0; }
  bool has_ids() const { return raw_.id_mask != 0; }
  bool has_bias() const { return raw_.column_bias != 0; }
  bool has_margin() const { return raw_.margin_mask != 0; }
  // Some column may not count for some row.
  bool has_mask() const { return has_ids() || has_bias() || has_margin(); }
  bool is_decoupled() const { return raw_.form == FNCE_FORM_DECOUPLED; }
  bool is_symmetric() const { return raw_.form == FNCE_FORM_SYMMETRIC; }
  bool is_union() const { return raw_.columns == FNCE_COLUMNS_UNION; }
  // True if negatives can be mixed as scores: partners then lie in the registers of one thread, and nothing but lambda
  // changes a row.
  bool can_mix_scores() const {
    return samples_permutation() && raw_.renormalize_neg == 0 &&
           (raw_.lambda_neg == FNCE_LAMBDA_CALL || raw_.lambda_neg == FNCE_LAMBDA_ROW);
  }

  // The number of lambdas of a granularity over `rows` rows.
  int64_t lambda_count(int32_t granularity, int64_t rows) const;
  int64_t lambda_pos_count() const { return lambda_count(raw_.lambda_pos, n()); }
  int64_t lambda_neg_count() const { return lambda_count(raw_.lambda_neg, k()); }

 private:
  fnce_problem raw_;
};

// The problem of the gradient of batch columns, equation (16): they are the queries and the anchors are the columns, of
// type `anchor_type`, each with a bias, and with ids where the problem has some.
Problem places_changed(const Problem& problem, int32_t anchor_type);

}  // namespace fnce
