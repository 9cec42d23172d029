// The oracle: equations (1)-(9) and (13)-(16) of docs/maths.md as naive loops, for tests only. It shares no code with
// the library: the mixed queue, the logits and the softmax are materialised, gradients follow the chain rule through
// the softmax probabilities, and lambda and the permutation are inputs. Result<double> is the truth that the library is
// compared with; Result<float> is the same arithmetic in float32, an honest naive implementation whose error scales
// tolerances.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "oracle/element.h"

namespace oracle {

enum class Granularity { kNone, kCall, kRow, kDimension, kElement };
enum class Columns { kQueue, kMixed, kUnion };
enum class Anchor { kMixed, kQuery };
enum class Reduction { kNone, kMean, kSum };
enum class Form { kInfoNce, kDecoupled };

// Nobody's negative; as the id of a query: it has none.
inline constexpr int64_t kNoColumn = std::numeric_limits<int64_t>::min();

// The arithmetic of the products: scores, and weighted sums of the negatives. Engines of 16-bit products round the
// anchor, and mixed negatives where they mix rows; these roundings belong to the function that they compute, and both
// instances of the oracle make them (oracle/operands.h). The weights P of the sums they round too: that is an error,
// which only the float32 twin makes. Everything else follows the unrounded anchor.
//   kBfloat16      a bfloat16 queue as it is
//   kFloat16       a float16 queue as it is; each anchor is rounded after a multiplication by a power of two
//   kFloat16Split  a float32 queue; each factor is a sum of two float16, whose errors are errors of the engine
//   kFloat16Fast   a float32 queue, which is rounded to float16 too, as are mixed rows of it
enum class Products { kFloat32, kBfloat16, kFloat16, kFloat16Split, kFloat16Fast };

// Which columns count for which rows, equation (14), [N,columns] of each set of scores.
struct Counting {
  std::vector<char> mixed, unmixed, plain;
};

struct Inputs {
  int64_t n = 0, k = 0, d = 0, c = 0;
  std::vector<double> x_q, x_k;      // [N,D]
  std::vector<double> queue;         // [K,D]
  std::vector<double> x_c;           // [C,D] batch columns
  std::vector<double> weight;        // [N], or empty: all 1
  std::vector<double> lambda_pos;    // [1] | [N] | [D] | [N,D] by granularity_pos
  std::vector<double> lambda_neg;    // [1] | [K] | [D] | [K,D] by granularity_neg
  std::vector<int32_t> permutation;  // [K] where the negatives are mixed
  double temperature = 0.07;
  double epsilon = 1e-12;
  bool normalize = true;
  Granularity granularity_pos = Granularity::kNone;
  Granularity granularity_neg = Granularity::kNone;
  bool renormalize_pos = false, renormalize_neg = false;
  Columns columns = Columns::kQueue;
  Anchor anchor = Anchor::kMixed;
  Reduction reduction = Reduction::kMean;
  Element queue_type = Element::kFloat32;  // what ranks round the key to
  Products products = Products::kFloat32;
  std::vector<bool>
      mixed_as_row;  // [K] without float32 products: the mixed negative is made and rounded; else scores mix
  // With kFloat16Fast: the magnitudes of the negatives lie where float16 holds them, in the loss and in fnce_scores.
  // Where they do not, they are multiplied in float32 as they are.
  bool negatives_fit = true, queue_fits = true;
  Element gradient_type = Element::kFloat32;  // of dq and dk as written; the results here are not rounded to it
  // Equations (13)-(16).
  std::vector<int64_t> query_ids, column_ids, batch_ids;  // [N], [K], [C] with ids
  std::vector<double> column_bias, batch_bias;            // [K], [C] with a bias
  bool with_bias = false;                                 // also where there is no column
  bool has_margin = false;
  double margin = 0;
  Form form = Form::kInfoNce;
  std::vector<double> upstream{1.0};  // [1] or [N], what dx_c and total_loss are multiplied by
  Counting counting;                  // empty: by (14). Finite differences hold a choice that was made

  bool mixes_negatives() const { return granularity_neg != Granularity::kNone; }
  bool rounds_anchor() const { return products != Products::kFloat32 && products != Products::kFloat16Split; }
  bool mixes_as_row(int64_t row) const {
    return products != Products::kFloat32 && mixes_negatives() && mixed_as_row[static_cast<std::size_t>(row)];
  }
  bool has_ids() const { return !query_ids.empty(); }
  bool has_bias() const { return with_bias || !column_bias.empty() || !batch_bias.empty(); }
  // The columns of the queue stand before the batch columns.
  int64_t queue_columns() const { return columns == Columns::kUnion ? 2 * k : k; }
  int64_t column_count() const { return queue_columns() + c; }
};

// Lambda of row `row` and dimension `dim`; 1 (the row itself) where there is no mixing.
double lambda_at(Granularity granularity, const std::vector<double>& lambda, int64_t row, int64_t dim, int64_t d);

// Equation (9). The counts of negatives above the positive are taken from `score` by the caller's margin, because a
// score within rounding of the threshold may fall on either side.
template <class T>
struct Scores {
  int64_t columns = 0;
  std::vector<T> score;                                   // [N, columns] before the division by the temperature
  std::vector<char> counts;                               // [N, columns] whether the column counts for the row
  std::vector<T> bias;                                    // [columns]
  std::vector<int64_t> count;                             // [N] columns that count
  std::vector<T> pos;                                     // [N]
  std::vector<T> rank_pos;                                // [N] the same with the key rounded to the queue's type
  std::vector<T> tie;                                     // [N] 8*2^-23 * max(|anchor|, |pos|)
  std::vector<T> mean, variance, min, max, log_mean_exp;  // [N]
};

// Negatives of row `row` above the ranks' positive plus its tie tolerance plus `margin`.
template <class T>
int64_t count_greater(const Scores<T>& scores, int64_t row, double margin);
// Negatives not below the ranks' positive minus its tie tolerance plus `margin`.
template <class T>
int64_t count_greater_equal(const Scores<T>& scores, int64_t row, double margin);

template <class T>
struct Result {
  // Equations (1), (2), (4), (6): [N,D] and [N].
  std::vector<T> q, k, q_norm, k_norm, q_mixed, k_mixed, q_mixed_norm, k_mixed_norm, anchor;
  std::vector<T> scoring;            // [N,D] the anchor as the negatives are multiplied by it
  std::vector<T> batch, batch_norm;  // [C,D], [C]: the batch columns after (1), and their norms before
  std::vector<T> negatives;          // [columns,D]: Z, the mixed queue, or both in the order Z^, Z; the batch columns
  Counting counting;
  std::vector<T> logit;          // [N,columns] equation (15); -inf where the column does not count
  std::vector<T> probability;    // [N,columns] P of (16): softmax over the columns and, unless decoupled, the positive
  std::vector<T> log_sum_exp;    // [N] over the negatives alone
  std::vector<T> normalizer;     // [N] L of (16)
  std::vector<T> pushed;         // [N] w of (8)
  std::vector<T> row_loss;       // [N] equation (7), without weight
  std::vector<T> cross_entropy;  // [N] what row_loss is where the form is not decoupled
  std::vector<T> loss_rows;      // [N] with weight
  std::vector<T> loss;           // [N] without a reduction, else [1]
  std::vector<T> dq, dk;         // [N,D] equation (8), of the reduced loss
  std::vector<T> dtemperature_rows;  // [N]
  T dtemperature = 0;
  std::vector<T> dx_c;                             // [C,D] equation (16)
  std::vector<T> entropy, dq_norm;                 // [N] equation (9)
  Scores<T> mixed, unmixed, plain;                 // of the loss; of q.k and a.z_j; of q.k and q.z_j
  std::vector<T> partial_m, partial_l, partial_o;  // [N], [N], [N,D]: the running softmax over the negatives
  std::vector<T> engine_rows,
      engine_sum;  // of 16-bit products: what they multiply; what comes out, [N,D], if anchors are rounded
};

template <class T>
Result<T> evaluate(const Inputs& inputs);

// Equation (14). With a margin, the double scores decide: one within rounding of the limit may fall on either side.
Counting counting_of(const Inputs& inputs);
// What every column that ids and bias allow scores above the positive of its row, in all three sets of scores.
std::vector<double> above_positives(const Inputs& inputs);

// The reduced loss alone (for finite differences), each row times its upstream gradient; reduction kNone is summed.
double total_loss(const Inputs& inputs);

// The weight that row i's loss and gradients carry: weight, and 1/N for the mean.
double row_scale(const Inputs& inputs, int64_t row);
// The gradient that comes from above to the row.
double upstream_of(const Inputs& inputs, int64_t row);

}  // namespace oracle
