// What the kernels are told: plain structs, filled by the host (kernels/host/parameters.cpp) and passed by value. Every
// kernel takes exactly one of them. No CUDA header is needed; all pointers are device memory. Names follow
// docs/maths.md.
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>

#include "core/layout.h"

namespace fnce::cuda {

// How the main kernel multiplies. The first is the plain family's, the others are the matrix units'.
//   kFloat32    float32 operands of any queue type, nothing is rounded
//   kHalf       a float16 queue as stored; anchors and softmax weights P rounded to float16
//   kBfloat     a bfloat16 queue as stored; anchors and P rounded to bfloat16
//   kHalfSplit  a float32 queue, x = h + l in two float16: hh + hl + lh, float32 accuracy (FNCE_PRECISION_EXACT)
//   kHalfFast   a float32 queue rounded to one float16 (FNCE_PRECISION_FAST)
enum class Operand : int32_t { kFloat32, kHalf, kBfloat, kHalfSplit, kHalfFast };

// The anchors are packed for the matrix units.
constexpr bool is_packed(Operand operand) { return operand != Operand::kFloat32; }
// A float32 queue becomes float16 on its way, which cannot hold all of its values.
constexpr bool converts(Operand operand) { return operand == Operand::kHalfSplit || operand == Operand::kHalfFast; }
// float16 planes per operand value.
constexpr int planes_of(Operand operand) { return operand == Operand::kHalfSplit ? 2 : 1; }

// float16 anchors are scaled per row by a power of two so that their largest element lies in [2^13, 2^14); elements of
// a float32 queue by 2^kQueueExponent before they are split or rounded to float16. (bfloat16 needs neither.)
constexpr int kAnchorExponent = 13;
constexpr int kQueueExponent = 14;
// A float32 queue whose largest magnitude lies outside [kQueueLeast, kQueueMost] would lose digits or overflow in
// float16: the plain kernel computes such a call again (zeros alone are fine).
constexpr float kQueueMost = 3.9f, kQueueLeast = 0.015625f;

// A number of fnce_args: a value, or where it lies in device memory.
template <class T>
struct Number {
  T value;
  const T* pointer;
};

// Where the random numbers of a call start: docs/maths.md, randomness contract.
struct Draws {
  Number<uint64_t> seed, offset;
  uint64_t offset_increment;
};

// Mixing coefficients, equations (2) and (3): given, or drawn from Beta(alpha, alpha) + shift.
struct LambdaSource {
  int32_t granularity;  // FNCE_LAMBDA_*
  const float* given;   // [1] | [R] | [D] | [R,D]; null: drawn
  Number<float> alpha, shift;
};

// N queries and their keys: equations (1), (2), (4), (6). `mixes` = false leaves (2) and (4) out (fnce_scores).
struct RowsIn {
  const void *x_q, *x_k;  // [N,D] feature_type
  int32_t feature_type;
  int32_t queue_type;  // what ranks round the positive's key to
  Operand operand;     // what the anchor is rounded to; kHalfFast also rounds the ranks' key to float16
  int32_t normalize, renormalize, mixes, anchor_mixed;
  int64_t n, d, row_offset;
  float epsilon;
  LambdaSource lambda;
  Draws draws;
  float* scratch;  // [N][kRowArrays][D] in global memory where D is too large for shared memory, else null
};
constexpr int kRowArrays = 6;
constexpr int64_t kSharedFeatures = 1024;  // largest D whose kRowArrays arrays are kept in shared memory

// The anchors as the matrix units take them. Rows and features are padded with zeros.
struct PackedAnchors {
  uint16_t* values;  // [planes][rows][d_padded] float16 | bfloat16; null for the plain family
  float* scale;      // [rows] a = value * scale; for a float32 queue 2^-kQueueExponent is already in it
  int64_t rows;      // N rounded up to whole row blocks of the main kernel
  int32_t d_padded;
};

// Thresholds of the ranks, equation (9): n_greater counts a.z > upper, n_greater_equal counts !(a.z < lower).
struct Thresholds {
  float *upper[2], *lower[2];  // [N]; [0] mixed, [1] unmixed; null where not gathered
  float margin;
  float* limits[2];  // [N] pos + margin, equation (14); null where nothing lies above
};

// Columns in the order of the pass. Position i of the pass reads row order[i].
struct Tables {
  int32_t* order;  // [K] sigma, as local rows; null: the order of the queue
  float* lambda;   // [K] lambda of row order[i], or [1] where it is one for the call; null without mixing of scores
  float* lambda_extent;  // [blocks] the largest |lambda| + |1 - lambda| seen by each table block
  int32_t extent_count;  // entries of lambda_extent
};

// Launch 1. Blocks 0 .. rows.n - 1 prepare one row each; `table_blocks` further ones fill the tables.
struct PrepParams {
  RowsIn rows;
  float* anchor;       // [N,D] float32, with the values that the negatives are multiplied by
  float* pos;          // [N] q^.k^ for ranks (k^ as a row of the queue, anchor as multiplied), or null
  float* unmixed_pos;  // [N] q.k likewise, or null
  float* exact_pos;    // [N] q.k or q^.k^ unrounded (fnce_scores reports it), or null
  PackedAnchors packed;
  Thresholds thresholds;
  Tables tables;
  LambdaSource lambda_neg;
  int64_t k, k_global, column_offset, perm_block;
  int32_t table_blocks;  // 0: no tables
  uint32_t* ticket;      // set to 0 for the finish kernel
};

// The same packing for anchors that come from outside (fnce_partial): blocks as in PrepParams.
struct PackParams {
  const float* anchor;  // [N,D]
  const float* pos;     // [N] or null
  const float* unmixed_pos;
  int64_t n, d;
  Operand operand;
  PackedAnchors packed;
  Thresholds thresholds;
  Tables tables;
  LambdaSource lambda_neg;
  Draws draws;
  int64_t k, k_global, column_offset, perm_block;
  int32_t table_blocks;
};

// Mixed rows made once, equations (3) and (4), where scores cannot be mixed: row j of `out` is z^_j.
struct PremixParams {
  const void* queue;  // [K,D] queue_type
  int32_t queue_type;
  int64_t k, d, column_offset;
  LambdaSource lambda;
  Draws draws;
  const int32_t* order;          // [K] sigma (partner of position i at position C(i)), or null with
  const int32_t* permutation;    // [K] a given permutation
  int64_t k_global, perm_block;  // blocks of the permutation, as in PrepParams
  int32_t renormalize;
  float epsilon;
  void* out;  // [K,out_stride] out_type, the padding zero
  int32_t out_type;
  int64_t out_stride;
  const uint32_t* invalid;  // not null and not 0: the permutation was found to be none; all rows become NaN
  const int64_t* ids;       // [K] or null
  int64_t* partner_ids;     // [K] or null: the ids of the rows' partners
};

// FNCE_CHECK_PERMUTATION: sets *invalid unless `permutation` is a bijection. `seen` and *invalid are 0 before.
struct CheckPermutationParams {
  const int32_t* permutation;
  int64_t k;
  uint32_t* seen;  // [(K + 31) / 32]
  uint32_t* invalid;
};

// Negatives that the pass runs over, in their order: premixed rows, the queue, batch columns; what there is of them.
constexpr int kMostSegments = 3;
struct Segment {
  const void* rows;  // [count][stride] elements of `type`
  int32_t type;      // FNCE_FLOAT32 | FNCE_FLOAT16 | FNCE_BFLOAT16
  int64_t stride;    // elements from row to row
  int64_t count;
  int32_t in_loss;  // counts in m, l, O and the mixed statistics
  int32_t unmixed;  // its raw scores are the unmixed statistics
  // Which of its columns count, equations (14) and (15), [count] each; null where nothing is said.
  const int64_t* ids;
  const int64_t* partner_ids;  // of the rows that premixed ones were mixed with
  const float* bias;           // natural
  const float* limits;         // a column counts for no row with which its product lies above
  int32_t unnamed_counts;      // columns of the id FNCE_NO_COLUMN count
};

// The partials of a row over the splits of its columns (split-K): each split leaves the arrays of a partial,
// [splits][N] rows in all, and an online softmax merge makes one of them, in the order of the splits. base2: m is a
// multiple of log2(e) times the score, as the main kernel keeps it, and kNoColumn where the row has no column in the
// split (core/columns.h); else m is natural, as in a partial of fnce_partial, which is one split by itself.
struct SplitPartials {
  PartialView view;
  int64_t n, d;
  int32_t count;
  int32_t base2;
  int32_t has_o;  // O was computed
};

// The main kernel (both families): softmax statistics and weighted sums over the negatives, equations (3), (5), (7),
// (9).
struct MainParams {
  PackedAnchors packed;  // sm80
  const float* anchor;   // [N,D] float32: plain
  int64_t n, d;
  Segment segments[kMostSegments];  // those beyond segment_count are empty
  int32_t segment_count;
  // sm80: the first column tile of each segment, all of them, and those whose scores are mixed, which come first.
  int32_t first_tile[kMostSegments], tiles, mixed_tiles;
  int32_t splits;  // gridDim.y: split s takes column tiles s*tiles/splits .. (s+1)*tiles/splits - 1
  int32_t mix;     // scores of the first segment are mixed: order and lambda of `tables` hold for it
  int32_t lambda_per_row;
  int32_t is_union;       // its raw columns count beside the mixed ones
  int32_t sums;           // O is wanted
  int32_t statistics[2];  // mixed, unmixed
  Tables tables;
  Number<float> temperature;
  Thresholds thresholds;
  int32_t masked;           // columns may not count: what segments, row_ids and limits say holds
  const int64_t* row_ids;   // [N] or null
  const float* limits[2];   // [N] or null: Thresholds.limits
  const uint32_t* only_if;  // not null: do nothing where it is 0
  float* queue_extent;      // [gridDim.x * gridDim.y] largest |z| seen by each block (float32 queues), or null
  int32_t queue_extent_count;
  int32_t wide;                  // rows of all segments can be copied in 16-byte pieces
  int32_t only_if_out_of_range;  // plain family: do nothing unless queue_extent says that float16 cannot hold the queue
  SplitPartials out;
};

// Merges the partials of splits into a partial of n rows (fnce_partial, and each step of fnce_merge).
struct MergeParams {
  SplitPartials from;
  PartialView out;      // natural logarithms
  int32_t accumulates;  // `out` already holds a partial, which comes first (fnce_merge)
};

// The last launch: merges a row's partials, adds its positive, equations (7), (8), (9). One block per row; the last
// one to end adds up the rows in order.
struct FinishParams {
  RowsIn rows;
  SplitPartials from;
  Number<float> temperature;
  int32_t reduction, gradient_type, is_decoupled;
  const float* weight;
  float* loss;
  void *dq, *dk;
  float *dtemperature_rows, *dtemperature, *log_sum_exp;
  fnce_score_buffers mixed, unmixed;
  int32_t needs_gradient;
  float *loss_rows, *dtemperature_row_sums;  // [N] workspace
  uint32_t* ticket;                          // 0 before
};

// fnce_scores: statistics of merged partials, no gradients.
struct FinishScoresParams {
  SplitPartials from;
  const float* pos;  // [N] unrounded q.k
  Number<float> temperature;
  fnce_score_buffers out;
  int64_t n;
};

// The gradient of the batch columns, equation (16): a pass in which rows and columns have changed places. First the
// biases of the anchors, for what comes from above with a positive and with a negative sign.
struct UpstreamParams {
  const float* upstream;  // [N], or [1]
  int32_t per_row, reduction;
  const float *weight, *log_sum_exp;  // [N]; weight may be null
  const float* pos;                   // [N] with a margin, else null
  float margin;
  int64_t n;
  float *bias[2], *limits;  // [N]; limits null without a margin
  uint32_t* any;            // [2], 0 before: 1 if some row sends something of the sign
};

// Then the pass for a sign, whose sums become what it adds to the gradient of the normalised columns.
struct ColumnSumsParams {
  SplitPartials from;       // of C rows; its O is used up
  const uint32_t* only_if;  // *only_if is 0: the pass has not run, and adds nothing
  float sign;
  int32_t accumulates;       // `sums` already holds those of the other sign
  const float* batch;        // [C,D] the columns as multiplied
  const float* batch_bias;   // [C] or null
  const int64_t* batch_ids;  // [C] or null
  Number<float> temperature;
  float* sums;  // [C,D]
};

// At last back through equation (1).
struct ColumnGradientParams {
  const void* x_c;
  int32_t feature_type, gradient_type, normalize;
  int64_t c, d;
  float epsilon;
  const float* sums;  // [C,D]
  void* dx_c;
};

// Equation (10).
struct PushParams {
  const void* keys;
  void* queue;
  const int64_t* position_in;  // null: 0
  int64_t* position_out;
  int64_t n, k, d;
  int32_t key_type, queue_type, normalize;
  float epsilon;
};

struct ScaleParams {
  const float* gradient;
  const float* upstream;
  void* out;
  int64_t rows, columns;
  int32_t per_row, out_type;
};

}  // namespace fnce::cuda
