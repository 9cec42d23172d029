/* FlashNCE: the contrastive loss of a training step, and its gradients, in one fused pass.
 *
 * This header is the whole public API, in plain C99, and its reference. It reads as a lesson, top to bottom:
 *
 *   1. Versions, status codes            what every call returns
 *   2. fnce_problem                      what is computed: sizes, types, structure   (fixed per plan)
 *   3. fnce_args                         with what: pointers and numbers             (may change every call)
 *   4. fnce_plan, fnce_loss              the loss and its gradients, in one call
 *   5. fnce_scale                        the backward pass: a saved gradient times the upstream gradient
 *   6. fnce_queue_push                   the negatives queue
 *   7. fnce_scores                       score statistics alone
 *   8. fnce_prep .. fnce_finish          the loss in steps, negatives sharded over processes
 *   9. fnce_columns_backward             the gradient of batch columns
 *  10. fnce_symmetric                    both directions of a batch of pairs (CLIP), and their gradients
 *  11. fnce_run                          stateless calls
 *  12. Inspection                        what a seed draws; devices, threads
 *
 * A minimal program:
 *
 *     fnce_problem p;
 *     fnce_problem_init(&p, sizeof p, FNCE_PRESET_FT);
 *     p.n = 256; p.k = 65536; p.d = 128;
 *     fnce_plan* plan;
 *     fnce_plan_create(&p, &plan);
 *     size_t bytes;
 *     fnce_plan_workspace(plan, &bytes);
 *     fnce_args a;
 *     fnce_args_init(&a, sizeof a);
 *     a.x_q = ...; a.x_k = ...; a.queue = ...; a.loss = ...; a.dq = ...; a.seed = step;
 *     fnce_loss(plan, &a, workspace, bytes, NULL);
 *     fnce_plan_destroy(plan);
 *
 * Conventions. There are N queries (`n`), K negatives in a queue (`k`), C batch columns (`batch_columns`) and D
 * features (`d`). A "column" is a negative as the loss sees it, a "key" is the positive of a query. Arrays are dense
 * and row-major: [N,D] means that element (i, c) lies at index i*D + c. "Equation (n)" is a number of docs/maths.md,
 * whose vocabulary the names follow. "Device memory" is memory of the problem's device, which for FNCE_CPU is ordinary
 * memory. Every pointer is aligned at least to the size of its element; workspaces and partials are aligned to
 * FNCE_ALIGNMENT bytes. Inputs and outputs must not overlap.
 *
 * Every call checks its arguments before it does anything else. If a check fails, the call returns its status and
 * writes nothing, and fnce_last_error() holds one sentence that names the field, its value and what is allowed.
 *
 * Calls that take a stream enqueue their work on it, never synchronise and never allocate device memory. On FNCE_CPU
 * the stream is ignored (pass NULL), and the work is done when the call returns. If several threads call at the same
 * time, one of the calls uses the library's pool of threads and each of the others uses its caller's thread alone.
 *
 * Determinism. The same inputs, seed, device and plan give the same bits. On FNCE_CPU they are also the same for any
 * number of threads, as long as the instruction set is the same.
 */
/* clang-format off */
#ifndef FLASHNCE_FLASHNCE_H
#define FLASHNCE_FLASHNCE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define FNCE_API
#else
#define FNCE_API __attribute__((visibility("default")))
#endif

/* ---- 1. Versions and status codes ------------------------------------------------------------------------------ */

#define FNCE_VERSION_MAJOR 0
#define FNCE_VERSION_MINOR 1
#define FNCE_VERSION_PATCH 0
#define FNCE_VERSION (FNCE_VERSION_MAJOR * 10000 + FNCE_VERSION_MINOR * 100 + FNCE_VERSION_PATCH)

/* Returns the version of the loaded library in the form of FNCE_VERSION. It differs from the macro if the program was
 * compiled with the header of another version. */
FNCE_API int32_t fnce_version(void);
/* Returns the same as text, such as "0.1.0", in static storage. */
FNCE_API const char* fnce_version_string(void);

/* Calls return one of these codes. The numbers are pinned: they never change meaning; new ones may come in the gaps. */
typedef int32_t fnce_status;
enum {
  FNCE_OK = 0,
  FNCE_INVALID_ARGUMENT = 10,    /* a field or a pointer is wrong; fnce_last_error() names it and what is allowed     */
  FNCE_UNSUPPORTED = 20,         /* the request has a meaning, but this library does not support it (yet)             */
  FNCE_NO_DEVICE = 30,           /* the library was built without the requested device, or the machine has none       */
  FNCE_DEVICE_MISMATCH = 31,     /* the stream or a pointer belongs to another device than the call's                 */
  FNCE_WORKSPACE_TOO_SMALL = 40, /* a block is smaller than fnce_plan_workspace or fnce_partial_layout asks for       */
  FNCE_OUT_OF_MEMORY = 50,       /* host memory for a plan or a sentence could not be allocated                       */
  FNCE_DEVICE_ERROR = 60,        /* the device reported a fault; the sentence names the kernel where it showed        */
  FNCE_INTERNAL_ERROR = 90       /* the library has a defect: please report it                                        */
};

/* Returns the name of a status code, such as "FNCE_OK", in static storage. A number that is no code gives
 * "unknown status". */
FNCE_API const char* fnce_status_string(fnce_status status);
/* Returns the sentence of this thread's last call that did not return FNCE_OK, or "" if there was none. The pointer is
 * valid until this thread's next failing call. */
FNCE_API const char* fnce_last_error(void);

/* The alignment of workspaces and partials, in bytes. */
#define FNCE_ALIGNMENT 256

/* A CUDA stream (cudaStream_t, CUstream), declared so that no CUDA header is needed. NULL is the default stream. */
typedef struct CUstream_st* fnce_stream;

/* ---- 2. The problem: sizes, types and structure ------------------------------------------------------------------ */

enum { FNCE_CPU = 1, FNCE_CUDA = 2 };                              /* fnce_problem.device                            */
enum { FNCE_FLOAT32 = 1, FNCE_FLOAT16 = 2, FNCE_BFLOAT16 = 3 };    /* element types                                  */

/* Presets are starting points; every field can be changed afterwards. */
enum {
  FNCE_PRESET_MOCO = 0,          /* no mixing: InfoNCE against the queue as it is                                     */
  FNCE_PRESET_FT = 1,            /* the feature transformation with one lambda per call (the authors' README command) */
  FNCE_PRESET_FT_ELEMENTWISE = 2 /* the same with one lambda per element (the authors' `dim_mask both`)               */
};

/* The granularity says how many mixing coefficients lambda there are, equations (2) and (3). R is N for the positives
 * and K for the negatives. */
enum {
  FNCE_LAMBDA_NONE = 0,      /* no mixing                  */
  FNCE_LAMBDA_CALL = 1,      /* one for the call,  [1]     */
  FNCE_LAMBDA_ROW = 2,       /* one per row,       [R]     */
  FNCE_LAMBDA_DIMENSION = 3, /* one per dimension, [D]     */
  FNCE_LAMBDA_ELEMENT = 4    /* one per element,   [R,D]   */
};

/* The source of lambda and of the permutation. */
enum {
  FNCE_SAMPLED = 0, /* drawn from (seed, offset): the randomness contract of docs/maths.md */
  FNCE_GIVEN = 1    /* read from fnce_args                                                 */
};

/* The columns that the positive competes with, equation (5). */
enum {
  FNCE_COLUMNS_QUEUE = 0, /* Z, the queue as it is; requires no negative mixing */
  FNCE_COLUMNS_MIXED = 1, /* the mixed queue                                    */
  FNCE_COLUMNS_UNION = 2  /* both of them, 2K columns                           */
};

/* The anchor a, which scores the columns, equation (6). */
enum {
  FNCE_ANCHOR_MIXED = 0, /* a = q^, the mixed query (the authors' code) */
  FNCE_ANCHOR_QUERY = 1  /* a = q                   (the paper's reading) */
};

enum { FNCE_REDUCTION_NONE = 0, FNCE_REDUCTION_MEAN = 1, FNCE_REDUCTION_SUM = 2 };

/* The form of a row's loss, equation (7). */
enum {
  FNCE_FORM_INFO_NCE = 0, /* the positive is in the sum: cross entropy                    */
  FNCE_FORM_DECOUPLED = 1, /* it is not: log-sum-exp of the columns minus the positive (DCL) */
  FNCE_FORM_SYMMETRIC = 2  /* n pairs, each side against the other, equation (17). The calls of such a plan are
                              fnce_symmetric and fnce_symmetric_backward alone; k and batch_columns are 0, and there is
                              no mixing, margin_mask or scores. queue_type is what both sides may be rounded to: they
                              are where fnce_plan_info.products is of that type, and nowhere else                   */
};

/* The id of a column that is nobody's negative, equation (14): an empty slot of a queue, or padding. As the id of a
 * query it says that the query has none. */
#define FNCE_NO_COLUMN INT64_MIN

/* The precision of the products with a float32 queue. FAST is a permission: the CPU backend computes EXACT for both,
 * and so does FNCE_CUDA with batch columns, whose gradient needs exact log-sum-exps.
 * With a 16-bit queue a backend may round anchors and softmax weights to the queue's type, because matrix units
 * multiply two operands of one type; sums are float32 (fnce_plan_info.products says which a plan has). */
enum {
  FNCE_PRECISION_EXACT = 0, /* float32 accuracy                             */
  FNCE_PRECISION_FAST = 1   /* one 16-bit product, TF32-class: about 4e-4   */
};

/* Bits that say which score statistics are gathered, equation (9). */
enum {
  FNCE_SCORES_NONE = 0,
  FNCE_SCORES_MIXED = 1,  /* those of the scores of the loss itself                                                   */
  FNCE_SCORES_UNMIXED = 2 /* those of q.k and a.z_j in the same pass, with k and z_j before mixing                    */
};

/* The problem says what is computed. Fill it with fnce_problem_init, then set fields. All int32_t choices take the
 * enums above. */
typedef struct fnce_problem {
  uint64_t struct_size;     /* sizeof(fnce_problem) of the caller; set by fnce_problem_init                           */

  int64_t n;                /* N queries, 1 .. 2^31-1                                                                 */
  int64_t k;                /* K negatives held here (this process's shard), 0 .. 2^31-1                              */
  int64_t d;                /* D features, 1 .. 2^20                                                                  */

  int64_t k_global;         /* negatives over all shards, k .. 2^31-1; 0 stands for k, and column_offset is then 0    */
  int64_t row_offset;       /* global index of query 0, 0 .. 2^32; row i draws lambda at index row_offset + i         */
  int64_t column_offset;    /* global index of negative 0; a multiple of perm_block where mixed negatives are sharded */
  int64_t perm_block;       /* the permutation stays inside blocks of this many columns, a multiple of 16; 0 means one
                               block of all columns. A shard (k < k_global) with mixed negatives is a union of blocks */

  int32_t device;           /* FNCE_CPU | FNCE_CUDA                                                                   */
  int32_t device_index;     /* which of these devices; 0 for FNCE_CPU                                                 */
  int32_t feature_type;     /* element type of x_q and x_k                                                            */
  int32_t queue_type;       /* element type of the queue                                                              */
  int32_t gradient_type;    /* element type of dq and dk, rounded once; fnce_scale takes FNCE_FLOAT32 only            */
  int32_t precision;        /* FNCE_PRECISION_*                                                                       */

  int32_t normalize;        /* 1: x_q and x_k are divided by their L2 norms, equation (1); 0: they are used as given  */
  int32_t lambda_pos;       /* FNCE_LAMBDA_*: mixing of q and k, equation (2)                                         */
  int32_t lambda_pos_source;/* FNCE_SAMPLED | FNCE_GIVEN                                                              */
  int32_t renormalize_pos;  /* 1: q^ and k^ are normalised after mixing, equation (4)                                 */
  int32_t lambda_neg;       /* FNCE_LAMBDA_*: mixing of the queue with its permutation, equation (3)                  */
  int32_t lambda_neg_source;/* FNCE_SAMPLED | FNCE_GIVEN                                                              */
  int32_t renormalize_neg;  /* 1: mixed negatives are normalised, equation (4)                                        */
  int32_t permutation_source; /* FNCE_SAMPLED | FNCE_GIVEN (excludes perm_block and shards)                           */
  int32_t columns;          /* FNCE_COLUMNS_*, equation (5)                                                           */
  int32_t anchor;           /* FNCE_ANCHOR_*, equation (6)                                                            */
  int32_t reduction;        /* FNCE_REDUCTION_*, equation (7)                                                         */
  int32_t scores;           /* FNCE_SCORES_* bits: the statistics that calls may ask for                              */

  int32_t threads;          /* CPU threads of a call, up to 1024; 0 stands for what fnce_get_threads() returns when the
                               plan is made. Results do not depend on it, the size of the workspace does              */

  /* Columns beyond the queue, and which of them count for a row; equations (13) to (15). */
  int32_t form;             /* FNCE_FORM_*, equation (7)                                                              */
  int32_t id_mask;          /* 1: columns whose id is the query's are left out: args.query_ids, column_ids, batch_ids */
  int32_t column_bias;      /* 1: a bias is added to the score of each column: args.column_bias, batch_bias           */
  int32_t margin_mask;      /* 1: columns that score above the positive by more than args.margin are left out         */
  int32_t reserved;         /* 0                                                                                      */
  int64_t batch_columns;    /* C batch columns, args.x_c, 0 .. 2^31-1                                                 */
} fnce_problem;

/* Fills `problem` with a preset: float32, CPU, normalised, mean reduction. The caller sets n, k and d, which are 0.
 * `size` is the caller's sizeof(fnce_problem); only that many bytes are written, so older callers keep working with
 * newer libraries. Errors: FNCE_INVALID_ARGUMENT (NULL, size below the first version's, unknown preset). */
FNCE_API fnce_status fnce_problem_init(fnce_problem* problem, size_t size, int32_t preset);

/* ---- 3. The arguments: pointers and numbers ---------------------------------------------------------------------- */

/* The arrays that score statistics are written to, equation (9): device memory, one entry per row, each pointer may be
 * NULL. Scores are inner products before the division by the temperature. Two scores tie when they differ by no more
 * than 8*2^-23 * max(|a|, |pos|), where |a| is the norm of the row's anchor, so that a collapsed encoder does not score
 * 100 %. For the same reason ranks compare with the score that the positive would have as a row of the queue, that is,
 * with its key rounded to queue_type. A row without columns has count 0, mean 0, variance NaN, min +inf, max -inf,
 * log-mean-exp -inf and entropy 0. The entropy is NULL with problem.column_bias. */
typedef struct fnce_score_buffers {
  float* pos;               /* [N] q^.k^                                                                              */
  int64_t* neg_count;       /* [N] number of columns                                                                  */
  float* neg_mean;          /* [N] mean score of the columns                                                          */
  float* neg_variance;      /* [N] unbiased variance of the scores (over count - 1), as torch.var                     */
  float* neg_min;           /* [N] smallest score of a column                                                         */
  float* neg_max;           /* [N] largest score of a column                                                          */
  float* neg_log_mean_exp;  /* [N] log of the mean of exp(score / temperature)                                        */
  int64_t* n_greater;       /* [N] columns above the positive: its rank; acc@1 is n_greater_equal = 0                 */
  int64_t* n_greater_equal; /* [N] columns above the positive or tied with it                                         */
  float* entropy;           /* [N] H of the softmax over all columns, exp(H) effective ones; NULL in `unmixed`        */
  float* dq_norm;           /* [N] L2 norm of the row of dq, before rounding to its type; NULL in `unmixed`           */
  void* reserved[5];        /* reserved for further statistics; not NULL gives FNCE_UNSUPPORTED                       */
} fnce_score_buffers;

/* Bits of `checks` of fnce_args, fnce_push and fnce_pairs: these checks read the data or ask the driver, which costs
 * time. Calls that take none of these structs (fnce_scale, fnce_merge, fnce_partial_rows) make none of them. */
enum {
  FNCE_CHECK_PERMUTATION = 1, /* a given permutation is a bijection of 0..K-1; a GPU cannot report that it is not, and
                                 gives NaN                                                                            */
  FNCE_CHECK_POINTERS = 2     /* every pointer of the call is memory that the problem's device can read: host memory
                                 gives FNCE_INVALID_ARGUMENT, another device's FNCE_DEVICE_MISMATCH, and nothing is
                                 written. On FNCE_CPU there is nothing to ask                                         */
};

/* The arguments hold the data and the numbers of one call. Fill them with fnce_args_init, then set fields. */
typedef struct fnce_args {
  uint64_t struct_size;         /* sizeof(fnce_args) of the caller; set by fnce_args_init                             */

  /* Inputs: device memory. */
  const void* x_q;              /* [N,D] queries, feature_type                                                        */
  const void* x_k;              /* [N,D] keys, the positive of each query, feature_type                               */
  const void* queue;            /* [K,D] negatives, queue_type, used as given (never normalised); NULL if K = 0       */
  const float* weight;          /* [N] weight of each row's loss, or NULL for 1. A row of weight 0 gives exactly 0    */
  const float* lambda_pos;      /* lambda if GIVEN: [1] | [N] | [D] | [N,D] by problem.lambda_pos; NULL if SAMPLED    */
  const float* lambda_neg;      /* lambda if GIVEN: [1] | [K] | [D] | [K,D] by problem.lambda_neg; NULL if SAMPLED    */
  const int32_t* permutation;   /* [K] permutation pi if GIVEN, a bijection of 0..K-1; NULL if SAMPLED                */

  /* Numbers. The call takes the value, or reads the number from device memory where the pointer of its name is not
   * NULL. A wrong number in memory of another device than the CPU cannot be reported: it gives NaN. */
  float temperature;            /* tau > 0                                                                            */
  float alpha_pos;              /* lambda_pos ~ Beta(alpha_pos, alpha_pos) + shift_pos, alpha_pos > 0                 */
  float shift_pos;              /* 1 extrapolates (FT), 0 interpolates; finite                                        */
  float alpha_neg;              /* lambda_neg ~ Beta(alpha_neg, alpha_neg) + shift_neg, alpha_neg > 0                 */
  float shift_neg;              /* 0 interpolates; finite                                                             */
  float epsilon;                /* smallest divisor of equations (1) and (4): F.normalize's eps, >= 1e-18             */
  uint64_t seed;                /* key of the random draws                                                            */
  uint64_t offset;              /* position in the sequence of draws, a multiple of 4; a call consumes 4              */
  uint64_t offset_increment;    /* added to offset or *offset_pointer (CUDA graphs), a multiple of 4                  */
  const float* temperature_pointer; /* [1]                                                                            */
  const float* alpha_pos_pointer;   /* [1]                                                                            */
  const float* shift_pos_pointer;   /* [1]                                                                            */
  const float* alpha_neg_pointer;   /* [1]                                                                            */
  const float* shift_neg_pointer;   /* [1]                                                                            */
  const uint64_t* seed_pointer;     /* [1]                                                                            */
  const uint64_t* offset_pointer;   /* [1]                                                                            */

  /* Outputs: device memory, each may be NULL. The gradients are those of the reduced loss; with FNCE_REDUCTION_NONE row
   * i is the gradient of loss[i]. fnce_scale multiplies them by the upstream gradient. The second GEMM is skipped if
   * none of dq, dk, the two dtemperature and the statistics `entropy` and `dq_norm` is asked for. */
  float* loss;                  /* [1], or [N] with FNCE_REDUCTION_NONE; equation (7), weights applied                */
  void* dq;                     /* [N,D] gradient of x_q, gradient_type, equation (8)                                 */
  void* dk;                     /* [N,D] gradient of x_k, gradient_type, equation (8)                                 */
  float* dtemperature_rows;     /* [N] each row's part of the gradient of the temperature                             */
  float* dtemperature;          /* [1] their sum, in a fixed order                                                    */
  fnce_score_buffers mixed;     /* needs FNCE_SCORES_MIXED in problem.scores                                          */
  fnce_score_buffers unmixed;   /* needs FNCE_SCORES_UNMIXED                                                          */

  int32_t checks;               /* FNCE_CHECK_* bits                                                                  */
  int32_t reserved;             /* 0                                                                                  */

  /* Columns beyond the queue, and which of them count for a row; equations (13) to (15). Inputs: device memory. What
   * the problem does not declare is NULL. */
  const void* x_c;              /* [C,D] batch columns, feature_type, normalised like x_q, then multiplied as if they
                                   lay in the queue, that is, rounded to queue_type; NULL if C = 0                    */
  const int64_t* query_ids;     /* [N] with id_mask: the id of each query, FNCE_NO_COLUMN if it has none              */
  const int64_t* column_ids;    /* [K] with id_mask: the id of each row of the queue, or FNCE_NO_COLUMN               */
  const int64_t* batch_ids;     /* [C] with id_mask: the id of each batch column, or FNCE_NO_COLUMN                   */
  const float* column_bias;     /* [K] with column_bias: added to s_j; -inf leaves column j out                       */
  const float* batch_bias;      /* [C] with column_bias                                                               */
  float margin;                 /* with margin_mask: of inner products, before the division by temperature; not NaN   */
  int32_t reserved2;            /* 0                                                                                  */

  float* log_sum_exp;           /* [N] output, may be NULL: what fnce_columns_backward needs, equation (16)  */
} fnce_args;

/* Fills `args` with defaults: every pointer NULL, temperature 0.07, FT's alphas 2.0 (positives) and 1.6 (negatives),
 * FT's shift 1 for the positives and 0 for the negatives, epsilon 1e-12, seed and offset 0. `size` is the caller's
 * sizeof(fnce_args). Errors: FNCE_INVALID_ARGUMENT (NULL, size). */
FNCE_API fnce_status fnce_args_init(fnce_args* args, size_t size);

/* ---- 4. Plan and loss -------------------------------------------------------------------------------------------- */

/* A plan is a checked problem with its backend, tiling and workspace layout. It is immutable: any number of threads and
 * streams may use one plan at the same time, each with its own workspace. */
typedef struct fnce_plan fnce_plan;

/* Checks the problem and picks the backend. `*plan` is written on FNCE_OK only. On a GPU this call loads the kernels
 * that calls with the plan may launch, so that the first of them may already be part of a stream capture.
 * Errors: FNCE_INVALID_ARGUMENT, FNCE_UNSUPPORTED, FNCE_NO_DEVICE, FNCE_OUT_OF_MEMORY, FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_plan_create(const fnce_problem* problem, fnce_plan** plan);
/* Frees the plan. NULL is accepted. */
FNCE_API void fnce_plan_destroy(fnce_plan* plan);
/* Writes how many bytes of workspace (device memory) calls with this plan need. The content of the workspace need not
 * be set before a call, nor kept after it. */
FNCE_API fnce_status fnce_plan_workspace(const fnce_plan* plan, size_t* bytes);
/* Says in words what would run, and why: one line with what fnce_plan_get_info tells, owned by the plan; "" for NULL.
 * Programs read the struct instead, because the words may change in any release. */
FNCE_API const char* fnce_plan_describe(const fnce_plan* plan);

/* fnce_plan_info.family: the kernels that a plan runs. New families get new numbers. */
enum {
  FNCE_FAMILY_CPU = 10,       /* vector and matrix instructions of the CPU, see cpu_isa                              */
  FNCE_FAMILY_PLAIN = 20,     /* CUDA: float32 multiply-add, for any number of features                              */
  FNCE_FAMILY_SM80 = 80       /* CUDA: matrix units by mma.sync, from compute capability 8.0                         */
};

/* fnce_plan_info.cpu_isa: the instruction set, one of those that FNCE_CPU_ISA names. */
enum {
  FNCE_CPU_ISA_NONE = 0,      /* not on a CPU                                                                        */
  FNCE_CPU_ISA_BASELINE = 1,
  FNCE_CPU_ISA_AVX2 = 10,
  FNCE_CPU_ISA_AVX512 = 20,
  FNCE_CPU_ISA_AVX512_BF16 = 21,
  FNCE_CPU_ISA_AMX = 22,
  FNCE_CPU_ISA_NEON = 40
};

/* fnce_plan_info.products: the numbers that both GEMMs multiply; sums are float32. */
enum {
  FNCE_PRODUCTS_FLOAT32 = 1,
  FNCE_PRODUCTS_FLOAT16 = 2,
  FNCE_PRODUCTS_BFLOAT16 = 3,
  FNCE_PRODUCTS_FLOAT16X3 = 10,   /* a float32 queue, each number split into two of float16: three products          */
  FNCE_PRODUCTS_FLOAT16_FAST = 11 /* a float32 queue, each number rounded to float16: one product                    */
};

/* fnce_plan_info.mixing: the way in which negatives are mixed, equation (3). */
enum {
  FNCE_MIXING_NONE = 0,         /* they are not                                                                      */
  FNCE_MIXING_SCORES = 1,       /* as scores: no mixed row is made                                                   */
  FNCE_MIXING_WHILE_PACKED = 2, /* rows, while the pass packs them                                                   */
  FNCE_MIXING_BEFORE_PASS = 3   /* rows, once, into the workspace                                                    */
};

/* fnce_plan_info.family_reason and mixing_reason: codes that say why the plan has this family and this mixing. */
enum {
  FNCE_REASON_NONE = 0,                /* nothing better is built for this device                                    */
  FNCE_REASON_RENORMALIZED = 10,       /* mixing: renormalised rows cannot be mixed as scores                        */
  FNCE_REASON_PERMUTATION_GIVEN = 11,  /* mixing: the partners of a given permutation lie anywhere                   */
  FNCE_REASON_LAMBDA_GRANULARITY = 12, /* mixing: scores have no dimensions or elements for lambda                   */
  FNCE_REASON_FORCED = 20,             /* family: FNCE_BACKEND says so, on a CPU FNCE_CPU_ISA                        */
  FNCE_REASON_COMPUTE_CAPABILITY = 21, /* family: the better one needs compute capability family_limit               */
  FNCE_REASON_FEATURES = 22,           /* family: the better one goes up to family_limit features                    */
  FNCE_REASON_SHARED_MEMORY = 23,      /* family: the better one needs family_limit bytes of shared memory a block   */
  FNCE_REASON_MASKS = 24               /* family: the better one has no ids, biases and margins                      */
};

/* The info says what a plan runs, how its work is cut, and why. Numbers that the device does not have are 0. */
typedef struct fnce_plan_info {
  uint64_t struct_size;         /* sizeof(fnce_plan_info) of the caller                                               */
  uint64_t workspace_bytes;     /* the bytes of fnce_plan_workspace                                                   */
  int64_t n;                    /* sizes and types of the problem                                                     */
  int64_t k;
  int64_t d;
  int64_t row_blocks;           /* number of blocks that the queries are cut into                                     */
  int64_t block_rows;           /* queries of a block; the last block may have fewer                                  */
  int64_t column_tiles;         /* number of tiles that the columns are cut into, raw ones beside premixed ones too   */
  int64_t tile_columns;         /* columns of a tile; the last tile may have fewer                                    */
  int64_t tile_features;        /* D as tiles pad it                                                                  */
  int64_t splits;               /* number of tasks that share the tiles of a block; CPU: 0 without negatives          */
  int64_t tasks;                /* row_blocks * splits: thread blocks of the main kernel, or tasks of threads; on a CPU
                                   a multiple of that where rows of a block are shared out among many threads         */
  int64_t shared_memory_bytes;  /* GPU: most shared memory that a thread block of the device can have                 */
  int64_t family_limit;         /* the number that family_reason speaks of                                            */

  int32_t device;               /* FNCE_CPU | FNCE_CUDA                                                               */
  int32_t device_index;
  int32_t family;               /* FNCE_FAMILY_*                                                                      */
  int32_t better_family;        /* FNCE_FAMILY_*: the family that family_reason rules out; 0 if there is none         */
  int32_t family_reason;        /* FNCE_REASON_*                                                                      */
  int32_t fallback_family;      /* FNCE_FAMILY_*: it takes a queue outside float16's range; 0 if there is none        */
  int32_t products;             /* FNCE_PRODUCTS_*                                                                    */
  int32_t mixing;               /* FNCE_MIXING_*                                                                      */
  int32_t mixing_reason;        /* FNCE_REASON_*: the reason why scores are not mixed                                 */
  int32_t columns;              /* FNCE_COLUMNS_*                                                                     */
  int32_t feature_type;
  int32_t queue_type;
  int32_t gradient_type;
  int32_t cpu_isa;              /* CPU: FNCE_CPU_ISA_*                                                                */
  int32_t lanes;                /* CPU: queries in a vector                                                           */
  int32_t threads;              /* CPU: most threads that a call uses                                                 */
  int32_t compute_capability;   /* GPU: 90 is 9.0                                                                     */
  int32_t multiprocessors;      /* GPU: multiprocessors of the device                                                 */
  int32_t planned_multiprocessors; /* GPU: multiprocessors that the work is cut for (FNCE_MULTIPROCESSORS)            */
  int32_t reserved;             /* 0                                                                                  */
  char device_name[64];         /* GPU: the driver's name for it, cut off where it is longer                          */
} fnce_plan_info;

/* Writes what `plan` runs; the tiles are those of fnce_loss and fnce_partial. `size` is the caller's
 * sizeof(fnce_plan_info); only that many bytes are written, and zeros where this library has no such field.
 *
 * Two variables of the environment change new plans on a GPU. FNCE_BACKEND forces their family, sm80 or plain; plans
 * fail where it cannot serve. FNCE_MULTIPROCESSORS cuts their work as for a GPU of so many multiprocessors, for where
 * others use the rest of the device.
 *
 * Errors: FNCE_INVALID_ARGUMENT (NULL, size below the first version's). */
FNCE_API fnce_status fnce_plan_get_info(const fnce_plan* plan, fnce_plan_info* info, size_t size);

/* Computes the loss of equation (7), and the gradients and statistics whose pointers are given, equations (8) and (9).
 *
 * `workspace` is device memory of `workspace_bytes` bytes, aligned to FNCE_ALIGNMENT; one call at a time may use it.
 *
 * If row i of x_q or x_k holds a value that is not finite, or its norm overflows, or its weight or one of its lambdas
 * is not finite, then the results of row i are not finite, and neither is a reduced loss. If the queue, x_c, a bias or
 * a lambda of the negatives holds such a value (a bias of -inf is none), the results of all rows for which the column
 * counts are not finite. Rows of weight 0 stay 0.
 *
 * Errors: FNCE_INVALID_ARGUMENT, FNCE_UNSUPPORTED, FNCE_WORKSPACE_TOO_SMALL, FNCE_DEVICE_MISMATCH,
 * FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_loss(const fnce_plan* plan, const fnce_args* args, void* workspace, size_t workspace_bytes,
                               fnce_stream stream);

/* ---- 5. Backward: scale a saved gradient ------------------------------------------------------------------------- */

/* Writes out[i,c] = upstream[upstream_count == 1 ? 0 : i] * gradient[i,c], computed in float32 and rounded once to
 * out_type; overflow gives infinity. `out` must not be `gradient`, so that a gradient can be used twice. Shapes:
 * gradient [rows,columns] float32, upstream [1] or [rows] float32, out [rows,columns] out_type, all in memory of the
 * device; rows is 0 .. 2^31-1, columns is 0 .. 2^31.
 * Errors: FNCE_INVALID_ARGUMENT, FNCE_UNSUPPORTED, FNCE_NO_DEVICE, FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_scale(int32_t device, int32_t device_index, const float* gradient, int64_t rows,
                                int64_t columns, const float* upstream, int64_t upstream_count, int32_t out_type,
                                void* out, fnce_stream stream);

/* ---- 6. The queue ------------------------------------------------------------------------------------------------ */

/* A push writes a batch of keys into a ring of K rows, equation (10). Fill it with fnce_push_init, then set fields. */
typedef struct fnce_push {
  uint64_t struct_size;         /* sizeof(fnce_push) of the caller; set by fnce_push_init                             */
  int64_t n;                    /* keys, 0 .. 2^31-1; if there are more than k, the last k stay                       */
  int64_t k;                    /* rows of the queue, 1 .. 2^31-1                                                     */
  int64_t d;                    /* features, 1 .. 2^20                                                                */
  int32_t device;               /* FNCE_CPU | FNCE_CUDA                                                               */
  int32_t device_index;
  int32_t key_type;             /* element type of keys                                                               */
  int32_t queue_type;           /* element type of the queue                                                          */
  int32_t normalize;            /* 1: keys are divided by their L2 norms first                                        */
  float epsilon;                /* smallest divisor, >= 1e-18                                                         */
  const void* keys;             /* [n,d] device memory; the keys as encoded, never mixed ones                         */
  void* queue;                  /* [k,d] device memory, updated                                                       */
  const int64_t* position_in;   /* [1] device memory: the row the first key goes to, 0 .. k-1                         */
  int64_t* position_out;        /* [1] device memory: the row after the last key; must not be position_in on a GPU    */
  int32_t checks;               /* FNCE_CHECK_POINTERS or 0                                                           */
  int32_t reserved;             /* 0                                                                                  */
} fnce_push;

/* Fills `push` with defaults: CPU, float32, normalised, epsilon 1e-12. `size` is the caller's sizeof(fnce_push).
 * Errors: FNCE_INVALID_ARGUMENT (NULL, size). */
FNCE_API fnce_status fnce_push_init(fnce_push* push, size_t size);
/* Writes key i to row (position + i) mod k, for any n. A key that is not finite, or whose norm overflows, makes its row
 * NaN. On the CPU position_in and position_out may be the same.
 * Errors: FNCE_INVALID_ARGUMENT (on the CPU also a position outside 0 .. k-1), FNCE_UNSUPPORTED, FNCE_NO_DEVICE,
 * FNCE_DEVICE_MISMATCH, FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_queue_push(const fnce_push* push, fnce_stream stream);

/* ---- 7. Score statistics alone ----------------------------------------------------------------------------------- */

/* Computes the statistics of the scores before any transformation, q.k and q.z_j, which a trainer logs as "before
 * FT". It needs the first GEMM only. It reads x_q, x_k, queue, x_c, ids, biases, margin, temperature and epsilon of
 * `args`. In `out`, entropy and dq_norm must be NULL. Any plan serves, whatever its problem.scores is. Errors: as
 * fnce_loss. */
FNCE_API fnce_status fnce_scores(const fnce_plan* plan, const fnce_args* args, const fnce_score_buffers* out,
                                 void* workspace, size_t workspace_bytes, fnce_stream stream);

/* ---- 8. The loss in steps, negatives sharded over processes ------------------------------------------------------ */

/* fnce_loss is fnce_prep, fnce_partial and fnce_finish. Between these steps, processes exchange data:
 *
 *   each process     fnce_prep     its own rows -> anchors           then all_gather the anchors
 *   each process     fnce_partial  all anchors x its own negatives   then reduce the partials: either all_gather and
 *                                  fnce_merge in the order of the shards, or on the arrays of fnce_partial_layout:
 *                                  M = all_reduce MAX(m), scale l and o by exp(m - M), all_reduce SUM
 *   each process     fnce_partial_rows, fnce_finish   its own rows of the merged partial -> loss and gradients
 *
 * A process has two plans: one for its own rows (prep, finish) and one for all rows (partial, merge). The two share d,
 * structure and temperature; problem.k is the size of the shard, and problem.n is the number of rows of that plan's
 * calls. FNCE_REDUCTION_MEAN divides by the n of the plan that finishes, which is the number of the process's own rows.
 * The draws do not depend on how the negatives are sharded. A shard may be empty (k = 0). */

/* The anchors are all that the negatives need to know of the rows. Device memory. */
typedef struct fnce_anchors {
  void* anchor;                 /* [N,D] float32: a of equation (6), in the values that multiply the negatives        */
  float* pos;                   /* [N] q^.k^ with k^ rounded to queue_type, the score that ranks and margin compare
                                   with; may be NULL if there is no margin_mask and problem.scores has no
                                   FNCE_SCORES_MIXED                                                                  */
  float* unmixed_pos;           /* [N] q.k likewise; may be NULL if problem.scores has no FNCE_SCORES_UNMIXED         */
  void* reserved[2];            /* reserved; not NULL gives FNCE_UNSUPPORTED                                          */
} fnce_anchors;

/* Writes the anchors of the plan's rows, equations (1), (2), (4), (6). Errors: as fnce_loss. */
FNCE_API fnce_status fnce_prep(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors,
                               void* workspace, size_t workspace_bytes, fnce_stream stream);

/* The layout says where a partial keeps which array: each field is an offset in bytes from the start of the partial.
 * The elements are float32 unless said otherwise. */
typedef struct fnce_layout {
  uint64_t struct_size;         /* sizeof(fnce_layout) of the caller                                                  */
  uint64_t bytes;               /* size of the whole partial                                                          */
  uint64_t m;                   /* [N] the row's reference: the largest score / temperature of its columns, or up to 28
                                   below it; -1e30 without columns                                                    */
  uint64_t l;                   /* [N] sum of exp(s - m), up to 2^40 per column                                       */
  uint64_t o;                   /* [N,D] sum of exp(s - m) times the column                                           */
  uint64_t count[2];            /* int64 [N] number of columns; [0] mixed, [1] unmixed; offset 0 if not gathered      */
  uint64_t mean[2];             /* [N] mean score                                                                     */
  uint64_t m2[2];               /* [N] sum of squared deviations from the mean, merged by Chan's formula              */
  uint64_t min[2];              /* [N] smallest score                                                                 */
  uint64_t max[2];              /* [N] largest score                                                                  */
  uint64_t n_greater[2];        /* int64 [N] columns above the positive                                               */
  uint64_t n_greater_equal[2];  /* int64 [N] columns above the positive or tied with it                               */
  uint64_t unmixed_m;           /* [N] m of the unmixed scores, for their log-mean-exp; offset 0 if not gathered      */
  uint64_t unmixed_l;           /* [N] l of the unmixed scores                                                        */
} fnce_layout;

/* Writes the layout of this plan's partials. `size` is the caller's sizeof(fnce_layout).
 * Errors: FNCE_INVALID_ARGUMENT (NULL, size). */
FNCE_API fnce_status fnce_partial_layout(const fnce_plan* plan, fnce_layout* layout, size_t size);
/* Runs the plan's negatives against `anchors` (of problem.n rows) and writes all arrays of `partial`, device memory of
 * `partial_bytes` bytes. It reads queue, x_c, lambda_neg, permutation, ids, biases and the numbers of
 * `args`. Errors: as fnce_loss. */
FNCE_API fnce_status fnce_partial(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors,
                                  void* partial, size_t partial_bytes, void* workspace, size_t workspace_bytes,
                                  fnce_stream stream);
/* Merges `count` partials of plans with equal n, d and scores in the order given into `out`, which may be
 * partials[0]. Errors: as fnce_loss. */
FNCE_API fnce_status fnce_merge(const fnce_plan* plan, const void* const* partials, int32_t count, void* out,
                                size_t partial_bytes, fnce_stream stream);
/* Copies rows first_row .. first_row + n - 1 of `partial`, a partial of `partial_plan`, to `out`, a partial of `plan`.
 * The n is that of `plan`; both plans have the same d and scores. `partial_bytes` is the size of `out`.
 * Errors: as fnce_loss. */
FNCE_API fnce_status fnce_partial_rows(const fnce_plan* partial_plan, const void* partial, int64_t first_row,
                                       const fnce_plan* plan, void* out, size_t partial_bytes, fnce_stream stream);
/* Adds the positives of the plan's rows and writes everything that fnce_loss writes. x_q, x_k and the draws must be
 * those of fnce_prep. Errors: as fnce_loss. */
FNCE_API fnce_status fnce_finish(const fnce_plan* plan, const fnce_args* args, const void* partial,
                                 size_t partial_bytes, void* workspace, size_t workspace_bytes, fnce_stream stream);

/* ---- 9. Backward: the gradient of batch columns ------------------------------------------------------------------ */

/* Writes dx_c, the gradient of the batch columns, equation (16), in a fixed order of summation. It differs from the
 * gradients of fnce_loss in that it mixes what all rows send to a column, so the upstream gradient of each row comes
 * first: upstream [N], that of loss[i] with FNCE_REDUCTION_NONE and else of row i's part of the reduced loss, or [1],
 * one number for all rows (float32, device memory). `log_sum_exp` [N] is what fnce_loss or fnce_finish wrote with the
 * same arguments. dx_c [C,D] is of gradient_type.
 *
 * `args` is that of fnce_loss: features, draws, weights, ids, bias, margin and numbers are read; outputs are not
 * written. `anchors` may be NULL: they are then made from x_q and x_k again. Otherwise they are those of fnce_prep, and
 * x_q and x_k are not read: a process that holds some of the batch columns computes their gradient from the anchors,
 * weights and log-sum-exps of all rows.
 *
 * A row whose log-sum-exp, weight, upstream gradient or anchor is not finite makes the gradient of every column that
 * counts for it NaN; a row of weight 0 or of upstream gradient 0 adds nothing. A column that is not finite has NaN as
 * its gradient where it counts for any row.
 *
 * Errors: those of fnce_loss; FNCE_INVALID_ARGUMENT if problem.batch_columns is 0. */
FNCE_API fnce_status fnce_columns_backward(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors,
                                           const float* log_sum_exp, const float* upstream, int64_t upstream_count,
                                           void* dx_c, void* workspace, size_t workspace_bytes, fnce_stream stream);

/* ---- 10. Both directions of a batch of pairs --------------------------------------------------------------------- */

/* The data and the numbers of fnce_symmetric and its backward pass: n pairs of two sides, a and b, such as images and
 * their texts. b_i is the positive of a_i, and the reverse; the rows of the other side are the columns. Fill it with
 * fnce_pairs_init, then set fields. Pointers are device memory. */
typedef struct fnce_pairs {
  uint64_t struct_size;         /* sizeof(fnce_pairs) of the caller; set by fnce_pairs_init                           */
  const void* x_a;              /* [N,D] one side, feature_type                                                       */
  const void* x_b;              /* [N,D] the other                                                                    */
  const float* weight;          /* [N] weight of each pair's loss, or NULL for 1                                      */
  const int64_t* a_ids;         /* [N] with id_mask: rows of equal ids are no columns of each other, and a row of the
                                   id FNCE_NO_COLUMN is nobody's column. NULL without: each pair then has its own id  */
  const int64_t* b_ids;         /* [N] likewise                                                                       */
  const float* a_bias;          /* [N] with column_bias: added to the scores of the rows of a as columns; -inf leaves
                                   one out                                                                            */
  const float* b_bias;          /* [N] likewise                                                                       */
  float temperature;            /* tau > 0                                                                            */
  float epsilon;                /* smallest divisor of equation (1), >= 1e-18                                         */
  const float* temperature_pointer; /* [1] read in the place of the value if it is not NULL                           */
  float* loss;                  /* [1], or [N] with FNCE_REDUCTION_NONE: fnce_symmetric writes it; may be NULL        */
  float* a_log_sum_exp;         /* [N] of the rows of a, over their columns and the positive. fnce_symmetric writes
                                   it, and it may be NULL there; fnce_symmetric_backward reads it                     */
  float* b_log_sum_exp;         /* [N] of the rows of b likewise                                                      */
  void* da;                     /* [N,D] gradient of x_a, gradient_type: fnce_symmetric_backward writes it; may be
                                   NULL                                                                               */
  void* db;                     /* [N,D] gradient of x_b likewise                                                     */
  float* dtemperature;          /* [1] gradient of the temperature likewise                                           */
  int32_t checks;               /* FNCE_CHECK_POINTERS or 0                                                           */
  int32_t reserved;             /* 0                                                                                  */
} fnce_pairs;

/* Fills `pairs` with defaults: every pointer NULL, temperature 0.07, epsilon 1e-12. `size` is the caller's
 * sizeof(fnce_pairs). Errors: FNCE_INVALID_ARGUMENT (NULL, size). */
FNCE_API fnce_status fnce_pairs_init(fnce_pairs* pairs, size_t size);

/* Computes the symmetric loss of equation (17) and the log-sum-exps of both directions, with one matrix product for
 * both; no N x N array exists. `plan` is of FNCE_FORM_SYMMETRIC. It reads the inputs of `pairs` and writes loss,
 * a_log_sum_exp and b_log_sum_exp.
 *
 * A row that is not finite makes the losses of its pair and of every row for which it counts as a column NaN, a weight
 * that is not finite that of its own pair. A pair of weight 0 has loss 0, but its rows are columns still: give them the
 * id FNCE_NO_COLUMN where they are padding.
 *
 * Errors: FNCE_INVALID_ARGUMENT, FNCE_UNSUPPORTED, FNCE_WORKSPACE_TOO_SMALL. */
FNCE_API fnce_status fnce_symmetric(const fnce_plan* plan, const fnce_pairs* pairs, void* workspace,
                                    size_t workspace_bytes, fnce_stream stream);
/* Writes the gradients of the pairs' losses times what comes from above, in a fixed order of summation, with two matrix
 * products a side. `upstream` is [N], that of loss[i] with FNCE_REDUCTION_NONE and else of pair i's part of the reduced
 * loss, or [1], one number for all pairs (upstream_count of them; float32, device memory). It reads the inputs of
 * `pairs` and the log-sum-exps that fnce_symmetric wrote with the same ones, and writes da, db and dtemperature. A pair
 * of weight or upstream gradient 0 adds nothing.
 * Errors: those of fnce_symmetric. */
FNCE_API fnce_status fnce_symmetric_backward(const fnce_plan* plan, const fnce_pairs* pairs, const float* upstream,
                                             int64_t upstream_count, void* workspace, size_t workspace_bytes,
                                             fnce_stream stream);

/* ---- 11. Stateless calls ----------------------------------------------------------------------------------------- */

/* These are fnce_plan_workspace and fnce_loss for callers that cannot hold a plan, such as a compiler's foreign
 * function interface. The library keeps the 256 plans that were used last and finds them by the bytes of the problem.
 * Such a caller sets problem.threads, so that a workspace size that it asked for once stays right. Both are
 * thread-safe. Errors: those of fnce_plan_create and fnce_loss. */
FNCE_API fnce_status fnce_run_workspace(const fnce_problem* problem, size_t* bytes);
FNCE_API fnce_status fnce_run(const fnce_problem* problem, const fnce_args* args, void* workspace,
                              size_t workspace_bytes, fnce_stream stream);

/* ---- 12. Inspection ---------------------------------------------------------------------------------------------- */

/* Write the lambda that a call with these arguments uses where lambda is SAMPLED, in row order, [1] | [R] | [D] |
 * [R,D]. `out` is host memory of `count` floats, and `count` must be the size of that shape. Numbers behind a pointer
 * of `args` must be readable by the host. Errors: FNCE_INVALID_ARGUMENT (also if nothing is mixed, or lambda is
 * GIVEN). */
FNCE_API fnce_status fnce_sample_lambda_pos(const fnce_problem* problem, const fnce_args* args, float* out,
                                            int64_t count);
FNCE_API fnce_status fnce_sample_lambda_neg(const fnce_problem* problem, const fnce_args* args, float* out,
                                            int64_t count);
/* Writes the permutation pi that such a call uses where it is SAMPLED, as indices of this shard's rows. `out` is host
 * memory of `count` = K indices. Errors: as above. */
FNCE_API fnce_status fnce_permutation(const fnce_problem* problem, const fnce_args* args, int32_t* out, int64_t count);

/* Writes the number of usable devices of a kind, FNCE_CPU or FNCE_CUDA. No such device is FNCE_OK with 0. */
FNCE_API fnce_status fnce_device_count(int32_t device, int32_t* count);
/* Returns one line in static storage: the version, the compiled backends, the CPU's instruction set in use and those
 * that can be forced. */
FNCE_API const char* fnce_build_info(void);
/* Sets and returns the process's default number of CPU threads, 1 .. 1024. It begins as the number of CPUs that this
 * process may run on. Plans keep the number that they were made with; fnce_scale and fnce_queue_push use the present
 * one.
 *
 * The library chooses the CPU's instruction set once, the best that the processor has. FNCE_CPU_ISA in the environment
 * forces another one: baseline, avx2, avx512, avx512_bf16 or amx, and neon on arm64. Plans fail where the processor
 * lacks it; fnce_build_info lists what there is. For tests, FNCE_CPU_MAX_ISA with one of these names makes the library
 * see a processor that has nothing beyond it; plans fail if it is another name. */
FNCE_API fnce_status fnce_set_threads(int32_t threads);
FNCE_API int32_t fnce_get_threads(void);

#ifdef __cplusplus
}
#endif
#endif /* FLASHNCE_FLASHNCE_H */
