// What each instruction set provides: the inner steps of the CPU backend, compiled once per instruction set from
// src/cpu/engines.
// A step is given packed or row-major arrays and does one row, one column tile or one panel; who calls it with what is
// in src/cpu/tiles.cpp, pass.cpp and rows.cpp. An int32_t `type` is the element type of an array in memory,
// FNCE_FLOAT32 | FNCE_FLOAT16 | FNCE_BFLOAT16; all arithmetic is in float32, but for the products of TileKernels
// `bfloat16`.
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>

#include "core/stats.h"
#include "cpu/tiling.h"
#include "math/permutation.h"
#include "math/philox.h"

namespace fnce::cpu {

// ---- Draws: vector forms of src/math, bit-equal to them -------------------------------------------------------------

struct LambdaDraw {
  uint64_t seed, offset;
  Stream stream;
  float inv_alpha, shift;
};

// ---- Column tiles ---------------------------------------------------------------------------------------------------

// How a packed row j of a tile is made: z[row] or the mix of z[row] and z[partner], equation (3).
struct PackJob {
  const void* queue;                  // [K,D]
  int32_t type;                       // of the queue
  const int32_t* rows;                // [columns] source rows, in packed order
  const int32_t* partners;            // [columns] or null: no mixing while packing
  const uint8_t* blank;               // [columns] or null: where not 0, zeros are packed instead
  const float* lambda_call;           // [1], or null
  const float* lambda_rows;           // [K] by row, or null
  const float* lambda_dims;           // [D], or null
  const float* lambda_given;          // [K,D] by row, or null
  const LambdaDraw* lambda_elements;  // drawn per element while packing, or null
  int64_t first_row;                  // global index of row 0: elements are drawn at first_row + row
  bool renormalize;                   // equation (4)
  float epsilon;
  int64_t d;
  int columns;
  int64_t d_padded;
  float* scratch;  // 3 * d_padded floats
  void* packed;    // as the TileKernels have it; zeros beyond D
};

// Running statistics of a row block's rows over the columns of a task, all arrays [padded rows]; m and l in base 2.
struct StatsLanes : StatsArrays<int32_t> {
  const float *upper, *lower;  // a negative above `upper` is greater than the positive, one >= `lower` greater or tied
};

// The packed column whose score is mixed with that of packed column j: the next of its quad.
constexpr int next_in_quad(int j) { return (j & ~3) | ((j + 1) & 3); }

// How the scores of a tile become columns.
enum class TileMode {
  kPlain,  // s_j = A_j
  kMixed,  // s_j = lambda_j A_j + (1 - lambda_j) A_C(j): equation (3) in score space
  kUnion,  // both: a packed column counts as two
  kPairs   // as kPlain, but the weights are those of both directions of a batch of pairs, equation (17)
};

// What the columns of one kind, raw or mixed, say about the rows that they count for, equations (14) and (15). Arrays
// are [kColumnTile], of packed columns.
struct ColumnMask {
  const int32_t* numbers;          // a column counts for no row of the same number
  const int32_t* partner_numbers;  // nor for one of this; null: the column is one row of the queue
  const float* bias;               // added to the inner product: bias * temperature; -inf: it counts for nobody
  const float* limits;             // it does not count where the inner product is above; null: nothing is
  const float* spoiled;            // added to the inner product: 0, or NaN for a column that is not finite; null: 0
};

// The mask of a tile. Rows are those of the task.
struct TileMask {
  ColumnMask raw, mixed;
  int32_t first_number, last_number;  // of all its columns that have one; last < first: none has
  bool by_number_alone;               // no bias, no limit, nothing spoiled: only rows of these numbers are concerned
};

// One side of a batch of pairs, equation (17): as rows, and as the columns of the other side's rows. Arrays are [N] and
// some padding that counts for nobody.
struct PairSide {
  const int32_t* numbers;  // of ids; none is no other side's number
  const float* bias;       // as a column: times the temperature; -inf: it counts for nobody, NaN: it is not finite
  const float* shift;      // as a row: its log-sum-exp, base 2
  const float* factor;     // as a row: what its softmax is multiplied by
};

// The sides of a tile: rows are those of the task, columns those of the tile.
struct PairTile {
  PairSide rows, columns;
  // The softmax of each column over the rows of the task: m in base 2, or what columns.h says of an ended stretch.
  float *m, *l;    // [columns]; null: they are not asked for
  float* scratch;  // [kColumnTile] maxima and [kColumnTile][lanes] sums
};

struct TileJob {
  TileMode mode;
  const PairTile* pairs;       // null: no pairs
  const TileMask* mask;        // null: all columns count for all rows
  const int32_t* row_numbers;  // [padded rows]; read with a mask, as are the next two
  const float* row_limits[2];  // [padded rows] of inner products, for the loss and for raw scores; null: none
  int32_t* counted;            // [padded rows] columns of the loss that count for each row are added here
  int32_t* not_finite;         // [padded rows] set where one of them has a score that is no number
  int columns;         // without padding; of a mixed tile a multiple of 4, quads {v0,v1,v2,v3} of a cycle side by side
  const void* packed;  // as PackJob.packed
  int64_t d_padded;
  float scale;          // log2(e) / temperature: scores in base 2
  const float* lambda;  // [kColumnTile] lambda_j of the packed column; null if plain
  bool in_loss;         // the columns count in the loss (otherwise only statistics of raw scores)
  bool sums;            // O is needed: the second GEMM
  StatsLanes* mixed;    // statistics of the columns, or null
  StatsLanes* unmixed;  // statistics of the raw scores A, or null
  Panels panels;
  const void* anchors;  // packed panels, [d_padded][3|2|1 vectors] elements
  float* sums_o;        // panels of O, [d_padded][3|2|1 vectors]
  float *m, *l;         // [padded rows], m in base 2
  float* weights;       // scratch: P of one panel, [kColumnTile][3 vectors]
  float* raw_scores;    // scratch of the same size: raw scores of one panel
  const void* queue;    // prefetched while computing: these rows of it
  int64_t row_bytes;
  const int32_t* next_rows;
  int next_count;
};

// One way to multiply: how tiles are cut and packed for it, and its steps.
struct TileKernels {
  int32_t product_type;  // of what both GEMMs multiply, and of packed anchors: FNCE_FLOAT32 | FNCE_BFLOAT16
  TileShape shape;
  // Bytes of a packed tile of kColumnTile columns.
  int64_t (*packed_bytes)(int64_t d_padded);
  // False if a value of the rows or their lambdas is not finite.
  bool (*pack_columns)(const PackJob& job);
  // [rows,D] float32 -> one panel, zero beyond rows and D.
  void (*pack_anchors)(const float* anchors, int64_t d, int rows, int vectors, int64_t d_padded, void* packed);
  void (*run_tile)(const TileJob& job);
  // Around all tiles of a task, on its thread.
  void (*enter)();
  void (*leave)();
};

// ---- Rows -----------------------------------------------------------------------------------------------------------

// One query and its key: normalised, mixed, renormalised; equations (1), (2), (4).
struct RowInput {
  const void *x_q, *x_k;  // [D]
  int32_t type;           // of both
  const float* lambda;    // [D] if per_element, else [1]; null: no mixing
  bool per_element, normalize, renormalize;
  float epsilon;
  int64_t d;
};

struct PreparedRow {
  float *raw_q, *raw_k;              // [D] scratch: the features in float32
  float *q, *k, *q_mixed, *k_mixed;  // [D]
  float norm_q, norm_k, norm_q_mixed, norm_k_mixed;
  float pos, unmixed_pos;  // q^.k^ and q.k
  bool finite;             // every input was
};

// Where the gradient of one row goes; equation (8). The factor `up` holds weight and reduction.
struct RowGradient {
  const float* o;   // [D] sum of the row's partial
  float inverse_l;  // 1 / l, 0 without columns
  bool anchor_mixed;
  float w, temperature, up;
  void *dq, *dk;   // [D] or null
  int32_t type;    // of both
  float* scratch;  // 2 * d_padded floats
  bool wants_norm;
  float anchor_o;  // out: a . O-bar
  float dq_norm;   // out, if wanted: L2 norm of dq
};

struct MergeJob {
  const float* const* o;    // [chunks] panels of O of this panel
  const float* const* m;    // [chunks]
  const float* const* l;    // [chunks]
  int chunks, vectors;      // of the panel
  int rows;                 // valid rows of the panel
  int64_t first_dim, dims;  // the slice of features to write
  int64_t d;
  float* out_o;          // [rows,D] row-major
  float *out_m, *out_l;  // [rows], natural logarithm; null: another slice writes them
  float* factors;        // scratch: chunks * 3 vectors
};

struct Kernels {
  const char* name;

  void (*sigma_table)(const Feistel& f, int32_t first, uint32_t begin, uint32_t end, int32_t* out);
  // out[i] = lambda of row first + i.
  void (*lambda_rows)(const LambdaDraw& draw, int64_t first, int64_t count, float* out);
  void (*lambda_dimensions)(const LambdaDraw& draw, int64_t d, float* out);
  void (*lambda_elements)(const LambdaDraw& draw, int64_t row, int64_t d, float* out);

  void (*prepare_row)(const RowInput& input, PreparedRow& state);
  void (*row_gradient)(const RowInput& input, const PreparedRow& state, RowGradient& gradient);
  void (*merge_panel)(const MergeJob& job);
  float (*norm)(const void* x, int32_t type, int64_t d);
  // out = x * factor, rounded to its type; x and out may be the same array.
  void (*scale_row)(const void* x, int32_t type, float factor, int64_t d, void* out, int32_t out_type);
  // Equation (1) of a row by itself: out [D] float32; the norm, 1 if not normalised.
  float (*normalize_row)(const RowInput& input, const void* x, float* out);
  // Its backward, equation (8), of g [D] in place; y is what normalize_row wrote. Written as out [D] of a type.
  void (*feature_gradient)(const RowInput& input, float norm, const float* y, float* g, void* out, int32_t out_type);
  // x . y with y, and x where round_x says so, rounded to a type first.
  float (*rounded_dot)(const float* x, bool round_x, const float* y, int32_t type, int64_t d);

  TileKernels float32;
  const TileKernels* bfloat16;  // for bfloat16 queues; null: float32 serves them

  const TileKernels& tiles_for(int32_t queue_type) const {
    return queue_type == FNCE_BFLOAT16 && bfloat16 ? *bfloat16 : float32;
  }
};

// The best instruction set of this processor; FNCE_CPU_ISA in the environment forces another one that it has.
const Kernels& kernels();
// Names of the instruction sets that this processor has and this library is built for, worst first: "baseline, avx2".
const char* usable_isas();
// FNCE_CPU_ISA has chosen kernels().
bool forced_isa();
// The value of FNCE_CPU_ISA if it is none of them; else null.
const char* refused_isa();

// Ways to multiply bfloat16 that are added to the AVX-512 copy where the processor can: ask only where it has AVX-512.
#if defined(FNCE_ISA_AMX)
const TileKernels& tiles_amx();
bool usable_amx();
#endif
#if defined(FNCE_ISA_AVX512_BF16)
const TileKernels& tiles_avx512_bf16();
bool usable_avx512_bf16();
#endif

#if defined(FNCE_ISA_AVX512)
const Kernels& kernels_avx512();
#endif
#if defined(FNCE_ISA_AVX2)
const Kernels& kernels_avx2();
#endif
#if defined(FNCE_ISA_NEON)
const Kernels& kernels_neon();
#endif
const Kernels& kernels_baseline();

}  // namespace fnce::cpu
