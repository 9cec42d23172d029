/* FlashNCE: the contrastive loss of a training step, and its gradients, in one fused pass.
 *
 * This header is the whole public API, in plain C99, and its reference. It reads as a lesson, top to bottom:
 *
 *   1. Versions, status codes            what every call returns
 *   2. fnce_problem                      what is computed: sizes, types, structure   (fixed per plan)
 *   3. fnce_args                         with what: pointers and numbers             (may change every call)
 *   4. fnce_plan, fnce_loss              the loss and its gradients, in one call
 *   5. fnce_scale                        the backward pass: a saved gradient times what comes from above
 *   6. fnce_queue_push                   the negatives queue
 *   7. fnce_scores                       score statistics alone
 *   8. fnce_prep .. fnce_finish          the loss in steps, negatives sharded over processes
 *   9. fnce_run                          stateless calls
 *  10. Inspection                        what a seed draws; devices, threads
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
 * Conventions. N queries (`n`), K negatives (`k`), D features (`d`). Arrays are dense and row-major: [N,D] means that
 * element (i, c) lies at index i*D + c. "Equation (n)" is a number of docs/maths.md, whose vocabulary the names follow.
 * "Device memory" is memory of the problem's device: ordinary memory for FNCE_CPU. Pointers are aligned to their
 * element's size at least; the workspace and partials to FNCE_ALIGNMENT bytes. Inputs and outputs must not overlap.
 *
 * Every call checks its arguments first. On any status but FNCE_OK of an argument check nothing has been written, and
 * fnce_last_error() holds one sentence that names the field, its value and what is allowed.
 *
 * Calls that take a stream enqueue their work on it, never synchronise and never allocate device memory. On FNCE_CPU the
 * stream is ignored (pass NULL) and the work is done when the call returns; of calls at the same time one has the library's
 * threads, the others run on their own.
 *
 * Determinism. Same inputs, seed, device and plan: the same bits. On FNCE_CPU with one instruction set: the same bits
 * for any number of threads.
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

/* The version of the library that is loaded, as FNCE_VERSION; compare with the macro to see a mismatch. */
FNCE_API int32_t fnce_version(void);
/* The same as text, "0.1.0". Static storage. */
FNCE_API const char* fnce_version_string(void);

/* What a call returns. The numbers are pinned: they never change meaning, and new ones may come in the gaps. */
typedef int32_t fnce_status;
enum {
  FNCE_OK = 0,
  FNCE_INVALID_ARGUMENT = 10,    /* a field or pointer is wrong; fnce_last_error() says which, what it was, what it may be */
  FNCE_UNSUPPORTED = 20,         /* meaningful, but not built into this library (yet)                                    */
  FNCE_NO_DEVICE = 30,           /* the device asked for is not compiled in or not there                                 */
  FNCE_DEVICE_MISMATCH = 31,     /* the call runs on another device than the plan's                                      */
  FNCE_WORKSPACE_TOO_SMALL = 40, /* fewer bytes than fnce_plan_workspace / fnce_partial_layout ask for                   */
  FNCE_OUT_OF_MEMORY = 50,       /* host memory: a plan, or a sentence, could not be allocated                           */
  FNCE_DEVICE_ERROR = 60,        /* the device reported a fault; the sentence names the kernel whose launch reported it  */
  FNCE_INTERNAL_ERROR = 90       /* a defect of the library: please report it                                            */
};

/* The name of a status code, "FNCE_OK". Static storage; "unknown status" for a number that is none. */
FNCE_API const char* fnce_status_string(fnce_status status);
/* The sentence of this thread's last call that did not return FNCE_OK; "" if there was none. Valid until this thread's
 * next failing call. */
FNCE_API const char* fnce_last_error(void);

/* Alignment in bytes of workspaces and partials. */
#define FNCE_ALIGNMENT 256

/* A CUDA stream (cudaStream_t, CUstream), without needing a CUDA header. NULL is the default stream. */
typedef struct CUstream_st* fnce_stream;

/* ---- 2. The problem: sizes, types and structure ------------------------------------------------------------------ */

enum { FNCE_CPU = 1, FNCE_CUDA = 2 };                              /* fnce_problem.device                            */
enum { FNCE_FLOAT32 = 1, FNCE_FLOAT16 = 2, FNCE_BFLOAT16 = 3 };    /* element types                                  */

/* Starting points; every field can be changed afterwards. */
enum {
  FNCE_PRESET_MOCO = 0,          /* no mixing: InfoNCE against the queue as it is                                    */
  FNCE_PRESET_FT = 1,            /* the feature transformation with one lambda per call (the authors' README command)*/
  FNCE_PRESET_FT_ELEMENTWISE = 2 /* the same with one lambda per element (the authors' `dim_mask both`)              */
};

/* How many mixing coefficients lambda there are, equations (2) and (3). R is N for the positives, K for the negatives. */
enum {
  FNCE_LAMBDA_NONE = 0,      /* no mixing                  */
  FNCE_LAMBDA_CALL = 1,      /* one for the call,  [1]     */
  FNCE_LAMBDA_ROW = 2,       /* one per row,       [R]     */
  FNCE_LAMBDA_DIMENSION = 3, /* one per dimension, [D]     */
  FNCE_LAMBDA_ELEMENT = 4    /* one per element,   [R,D]   */
};

/* Where lambda and the permutation come from. */
enum {
  FNCE_SAMPLED = 0, /* drawn from (seed, offset): the randomness contract of docs/maths.md */
  FNCE_GIVEN = 1    /* read from fnce_args                                                 */
};

/* Which columns the positive competes with, equation (5). */
enum {
  FNCE_COLUMNS_QUEUE = 0, /* Z, the queue as it is; requires no negative mixing */
  FNCE_COLUMNS_MIXED = 1, /* the mixed queue                                    */
  FNCE_COLUMNS_UNION = 2  /* both: 2K columns                                   */
};

/* What scores the negatives, equation (6). */
enum {
  FNCE_ANCHOR_MIXED = 0, /* a = q^, the mixed query (the authors' code) */
  FNCE_ANCHOR_QUERY = 1  /* a = q                   (the paper's reading) */
};

enum { FNCE_REDUCTION_NONE = 0, FNCE_REDUCTION_MEAN = 1, FNCE_REDUCTION_SUM = 2 };

/* How operands are multiplied where the queue is float32. FAST is a permission: the CPU backend computes EXACT for both. With
 * a 16-bit queue the backend may round anchors and softmax weights to the queue's type, as matrix units take them; sums are
 * float32 (fnce_plan_describe says which products a plan has). */
enum {
  FNCE_PRECISION_EXACT = 0, /* float32 accuracy                             */
  FNCE_PRECISION_FAST = 1   /* one 16-bit product, TF32-class: about 4e-4   */
};

/* Score statistics to gather, bits; equation (9). */
enum {
  FNCE_SCORES_NONE = 0,
  FNCE_SCORES_MIXED = 1,  /* of the scores of the loss itself                                        */
  FNCE_SCORES_UNMIXED = 2 /* of q.k and a.z_j: the same pass, before mixing q^, k^ and the negatives */
};

/* What is computed. Fill it with fnce_problem_init, then set fields. All int32_t choices take the enums above. */
typedef struct fnce_problem {
  uint64_t struct_size;     /* sizeof(fnce_problem) of the caller; set by fnce_problem_init                           */

  int64_t n;                /* N queries, 1 .. 2^31-1                                                                 */
  int64_t k;                /* K negatives held here (this process's shard), 0 .. 2^31-1                              */
  int64_t d;                /* D features, 1 .. 2^20                                                                  */

  int64_t k_global;         /* negatives over all shards, k .. 2^31-1; 0: k, where column_offset is 0                 */
  int64_t row_offset;       /* global index of query 0, 0 .. 2^32: row i draws at row_offset + i                      */
  int64_t column_offset;    /* global index of negative 0; where mixed negatives have a perm_block, a multiple of it  */
  int64_t perm_block;       /* the permutation stays inside blocks of this many columns: 0 (one block of all of them)
                               or a multiple of 16. A shard (k < k_global) with mixed negatives is a union of blocks   */

  int32_t device;           /* FNCE_CPU | FNCE_CUDA                                                                   */
  int32_t device_index;     /* which one; 0 for FNCE_CPU                                                              */
  int32_t feature_type;     /* element type of x_q and x_k                                                            */
  int32_t queue_type;       /* element type of the queue                                                              */
  int32_t gradient_type;    /* element type of dq and dk, rounded once; FNCE_FLOAT32 to save for fnce_scale           */
  int32_t precision;        /* FNCE_PRECISION_*                                                                       */

  int32_t normalize;        /* 1: x_q and x_k are divided by their L2 norms, equation (1); 0: used as they are        */
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
  int32_t scores;           /* FNCE_SCORES_* bits: which statistics the calls may be asked for                        */

  int32_t threads;          /* CPU threads for a call, up to 1024; 0: what fnce_get_threads() says when the plan is made.
                               Never changes bits, but the size of the workspace                                     */

  /* Reserved for masks: 0, or FNCE_UNSUPPORTED. */
  int32_t target_columns;   /* per row, a column that is the positive or is left out                                  */
  int32_t id_mask;          /* negatives whose id equals the query's are left out                                     */
  int32_t column_segments;  /* negatives in several arrays                                                            */
  int32_t valid_columns;    /* only the first so many rows of the queue are valid, a count in device memory           */
  int32_t reserved;         /* 0                                                                                      */
} fnce_problem;

/* Fills `problem` with a preset: float32, CPU, normalised, mean reduction; n = k = d = 0 to be set. `size` is the
 * caller's sizeof(fnce_problem); only that many bytes are written, so older callers keep working with newer libraries.
 * Errors: FNCE_INVALID_ARGUMENT (NULL, size below the first version's, unknown preset). */
FNCE_API fnce_status fnce_problem_init(fnce_problem* problem, size_t size, int32_t preset);

/* ---- 3. The arguments: pointers and numbers ---------------------------------------------------------------------- */

/* Where score statistics go, equation (9): device memory, one entry per row, each pointer may be NULL. Scores are
 * inner products before the division by the temperature. Two scores tie when they differ by no more than
 * 8*2^-23 * max(|a|, |pos|), |a| the norm of the row's anchor, so that a collapsed encoder does not score 100 %. For
 * the same reason ranks compare with the positive's score as a row of the queue: its key rounded to queue_type.
 * Without columns: count 0, mean 0, variance NaN, min +inf, max -inf, log-mean-exp -inf, entropy 0. */
typedef struct fnce_score_buffers {
  float* pos;               /* [N] q^.k^                                                                              */
  int64_t* neg_count;       /* [N] number of columns                                                                  */
  float* neg_mean;          /* [N] mean of the negatives                                                              */
  float* neg_variance;      /* [N] unbiased variance (over count - 1), as torch.var                                   */
  float* neg_min;           /* [N]                                                                                    */
  float* neg_max;           /* [N]                                                                                    */
  float* neg_log_mean_exp;  /* [N] log of the mean of exp(negative / temperature)                                     */
  int64_t* n_greater;       /* [N] negatives above the positive: its rank; acc@1 is n_greater_equal = 0               */
  int64_t* n_greater_equal; /* [N] negatives above or tied with it                                                    */
  float* entropy;           /* [N] H of the softmax over all columns: exp(H) effective negatives; NULL in `unmixed`   */
  float* dq_norm;           /* [N] L2 norm of the row of dq, before rounding to its type; NULL in `unmixed`           */
  void* reserved[5];        /* NULL, or FNCE_UNSUPPORTED: for further statistics                                      */
} fnce_score_buffers;

/* fnce_args.checks and fnce_push.checks, bits: what is checked by reading the data or asking the driver, at a cost.
 * Calls with neither (fnce_scale, fnce_merge, fnce_partial_rows) ask nothing. */
enum {
  FNCE_CHECK_PERMUTATION = 1, /* a given permutation is a bijection of 0..K-1. On a GPU this cannot be reported: NaN    */
  FNCE_CHECK_POINTERS = 2     /* every pointer of the call is memory that the problem's device can read: host memory
                                 gives FNCE_INVALID_ARGUMENT, another device's FNCE_DEVICE_MISMATCH, and nothing is
                                 written. Nothing is asked on FNCE_CPU                                                */
};

/* With what it is computed. Fill it with fnce_args_init, then set fields. */
typedef struct fnce_args {
  uint64_t struct_size;         /* sizeof(fnce_args) of the caller; set by fnce_args_init                             */

  /* Inputs: device memory. */
  const void* x_q;              /* [N,D] queries, feature_type                                                        */
  const void* x_k;              /* [N,D] their keys (positives), feature_type                                         */
  const void* queue;            /* [K,D] negatives, queue_type, used as they are (never normalised); NULL if K = 0    */
  const float* weight;          /* [N] weight of each row's loss, or NULL: all 1. 0 gives exactly 0, whatever the row */
  const float* lambda_pos;      /* GIVEN lambda: [1] | [N] | [D] | [N,D] by problem.lambda_pos; NULL if SAMPLED       */
  const float* lambda_neg;      /* GIVEN lambda: [1] | [K] | [D] | [K,D] by problem.lambda_neg; NULL if SAMPLED       */
  const int32_t* permutation;   /* GIVEN permutation pi: [K], a bijection of 0..K-1; NULL if SAMPLED                  */

  /* Numbers. Each is a value, or, where the pointer beside it is not NULL, read from device memory by the call. A wrong
   * number in memory of another device than the CPU cannot be reported: it gives NaN. */
  float temperature;            /* tau > 0                                                                            */
  float alpha_pos;              /* lambda_pos ~ Beta(alpha_pos, alpha_pos) + shift_pos, alpha_pos > 0                 */
  float shift_pos;              /* 1 extrapolates (FT), 0 interpolates; finite                                        */
  float alpha_neg;              /* lambda_neg ~ Beta(alpha_neg, alpha_neg) + shift_neg, alpha_neg > 0                 */
  float shift_neg;              /* 0 interpolates; finite                                                             */
  float epsilon;                /* smallest norm divided by, equations (1) and (4): F.normalize's eps, >= 1e-18          */
  uint64_t seed;                /* key of the random draws                                                            */
  uint64_t offset;              /* position in the sequence of draws, a multiple of 4; a call uses up 4               */
  uint64_t offset_increment;    /* added to offset or *offset_pointer (CUDA graphs), a multiple of 4                  */
  const float* temperature_pointer; /* [1]                                                                            */
  const float* alpha_pos_pointer;   /* [1]                                                                            */
  const float* shift_pos_pointer;   /* [1]                                                                            */
  const float* alpha_neg_pointer;   /* [1]                                                                            */
  const float* shift_neg_pointer;   /* [1]                                                                            */
  const uint64_t* seed_pointer;     /* [1]                                                                            */
  const uint64_t* offset_pointer;   /* [1]                                                                            */

  /* Outputs: device memory, each may be NULL. The gradients are those of the reduced loss (times the upstream gradient:
   * fnce_scale); with FNCE_REDUCTION_NONE row i is the gradient of loss[i]. Without dq, dk, the two dtemperature and
   * the statistics `entropy` and `dq_norm`, the second GEMM is skipped. */
  float* loss;                  /* [1], or [N] with FNCE_REDUCTION_NONE; equation (7), weights applied                */
  void* dq;                     /* [N,D] gradient of x_q, gradient_type, equation (8)                                 */
  void* dk;                     /* [N,D] gradient of x_k, gradient_type, equation (8)                                 */
  float* dtemperature_rows;     /* [N] each row's part of the gradient of the temperature                             */
  float* dtemperature;          /* [1] their sum, in a fixed order                                                    */
  fnce_score_buffers mixed;     /* needs FNCE_SCORES_MIXED in problem.scores                                          */
  fnce_score_buffers unmixed;   /* needs FNCE_SCORES_UNMIXED                                                          */

  int32_t checks;               /* FNCE_CHECK_* bits                                                                  */
  int32_t reserved;             /* 0                                                                                  */

  /* Reserved for masks: NULL, or FNCE_UNSUPPORTED. */
  const int32_t* target_columns;    /* [N]                                                                            */
  const int64_t* query_ids;         /* [N]                                                                            */
  const int64_t* column_ids;        /* [K]                                                                            */
  const int64_t* valid_columns;     /* [1]                                                                            */
} fnce_args;

/* Fills `args`: no pointers, temperature 0.07, FT's alphas 2.0 and 1.6 and shift 1 for the positives, epsilon 1e-12,
 * seed and offset 0. `size` is the caller's sizeof(fnce_args). Errors: FNCE_INVALID_ARGUMENT (NULL, size). */
FNCE_API fnce_status fnce_args_init(fnce_args* args, size_t size);

/* ---- 4. Plan and loss -------------------------------------------------------------------------------------------- */

/* A checked problem with its backend, tiling and workspace layout. Immutable: any number of threads and streams may use
 * one plan at the same time, each with its own workspace. */
typedef struct fnce_plan fnce_plan;

/* Checks the problem and picks the backend. `*plan` is written on FNCE_OK only. On a GPU the kernels that its calls may launch
 * are loaded here: the first call may already be part of a stream capture. Errors: FNCE_INVALID_ARGUMENT, FNCE_UNSUPPORTED,
 * FNCE_NO_DEVICE, FNCE_OUT_OF_MEMORY, FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_plan_create(const fnce_problem* problem, fnce_plan** plan);
/* Accepts NULL. */
FNCE_API void fnce_plan_destroy(fnce_plan* plan);
/* Bytes of workspace (device memory) that calls with this plan need. The content need not be set or kept. */
FNCE_API fnce_status fnce_plan_workspace(const fnce_plan* plan, size_t* bytes);
/* What would run, and why, in words: backend, instruction set or device, tiles, tasks, workspace. Owned by the plan. "" for
 * NULL. On a GPU, FNCE_BACKEND in the environment forces the kernels of new plans: sm80 (matrix units) or plain (float32
 * products, for any number of features); plans fail where they cannot serve. FNCE_MULTIPROCESSORS cuts the work of new plans as
 * for a GPU of so many multiprocessors, where others use the rest of them. */
FNCE_API const char* fnce_plan_describe(const fnce_plan* plan);

/* The loss of equation (7), with the gradients and statistics whose pointers are given, equations (8) and (9).
 *
 * `workspace`: device memory, `workspace_bytes` of it, aligned to FNCE_ALIGNMENT; one call at a time may use it.
 *
 * A non-finite value in row i of x_q or x_k (or a norm that overflows), weight i or a lambda of row i makes the results of
 * row i non-finite (and so a reduced loss); one in the queue or in a lambda of the negatives makes all rows non-finite; rows
 * of weight 0 stay 0.
 *
 * Errors: FNCE_INVALID_ARGUMENT, FNCE_UNSUPPORTED, FNCE_WORKSPACE_TOO_SMALL, FNCE_DEVICE_MISMATCH, FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_loss(const fnce_plan* plan, const fnce_args* args, void* workspace, size_t workspace_bytes,
                               fnce_stream stream);

/* ---- 5. Backward: scale a saved gradient ------------------------------------------------------------------------- */

/* out[i,c] = upstream[upstream_count == 1 ? 0 : i] * gradient[i,c], in float32 and rounded once to out_type; overflow gives
 * infinity. Out of place, so that a gradient can be used twice. gradient: [rows,columns] float32; upstream: [1] or [rows]
 * float32; out: [rows,columns] out_type; all in memory of the device. rows 0 .. 2^31-1, columns 0 .. 2^31.
 * Errors: FNCE_INVALID_ARGUMENT, FNCE_UNSUPPORTED, FNCE_NO_DEVICE, FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_scale(int32_t device, int32_t device_index, const float* gradient, int64_t rows, int64_t columns,
                                const float* upstream, int64_t upstream_count, int32_t out_type, void* out,
                                fnce_stream stream);

/* ---- 6. The queue ------------------------------------------------------------------------------------------------ */

/* Writes a batch of keys into a ring of K rows, equation (10). Fill it with fnce_push_init, then set fields. */
typedef struct fnce_push {
  uint64_t struct_size;         /* sizeof(fnce_push) of the caller; set by fnce_push_init                             */
  int64_t n;                    /* keys, 0 .. 2^31-1; of more than k keys the last k stay                             */
  int64_t k;                    /* rows of the queue, 1 .. 2^31-1                                                     */
  int64_t d;                    /* features, 1 .. 2^20                                                                */
  int32_t device;               /* FNCE_CPU | FNCE_CUDA                                                               */
  int32_t device_index;
  int32_t key_type;             /* element type of keys                                                               */
  int32_t queue_type;           /* element type of the queue                                                          */
  int32_t normalize;            /* 1: keys are divided by their L2 norms first                                        */
  float epsilon;                /* smallest norm divided by, >= 1e-18                                                 */
  const void* keys;             /* [n,d] device memory; never mixed keys                                              */
  void* queue;                  /* [k,d] device memory, updated                                                       */
  const int64_t* position_in;   /* [1] device memory: the row the first key goes to, 0 .. k-1                         */
  int64_t* position_out;        /* [1] device memory: the row after the last key; must not be position_in on a GPU    */
  int32_t checks;               /* FNCE_CHECK_POINTERS or 0                                                           */
  int32_t reserved;             /* 0                                                                                  */
} fnce_push;

/* CPU, float32, normalise, epsilon 1e-12; `size` is the caller's sizeof(fnce_push). */
FNCE_API fnce_status fnce_push_init(fnce_push* push, size_t size);
/* Key i goes to row (position + i) mod k, for any n; a key that is not finite, or whose norm overflows, makes its row NaN. On
 * the CPU position_in and position_out may be the same.
 * Errors: FNCE_INVALID_ARGUMENT (on the CPU also a position outside 0 .. k-1), FNCE_UNSUPPORTED, FNCE_NO_DEVICE,
 * FNCE_DEVICE_MISMATCH, FNCE_DEVICE_ERROR. */
FNCE_API fnce_status fnce_queue_push(const fnce_push* push, fnce_stream stream);

/* ---- 7. Score statistics alone ----------------------------------------------------------------------------------- */

/* The statistics of the scores before any transformation, q.k and q.z_j, with the first GEMM only: what a trainer logs as
 * "before FT". `out`: entropy and dq_norm must be NULL. Of `args`, x_q, x_k, queue, temperature and epsilon are used.
 * Any plan serves, whatever its problem.scores. Errors: as fnce_loss. */
FNCE_API fnce_status fnce_scores(const fnce_plan* plan, const fnce_args* args, const fnce_score_buffers* out,
                                 void* workspace, size_t workspace_bytes, fnce_stream stream);

/* ---- 8. The loss in steps, negatives sharded over processes ------------------------------------------------------- */

/* fnce_loss = fnce_prep, fnce_partial, fnce_finish. In between, processes exchange data:
 *
 *   each process     fnce_prep     its own rows -> anchors           then all_gather the anchors
 *   each process     fnce_partial  all anchors x its own negatives   then reduce the partials: either all_gather and
 *                                  fnce_merge in the order of the shards, or on the arrays of fnce_partial_layout:
 *                                  M = all_reduce MAX(m), scale l and o by exp(m - M), all_reduce SUM
 *   each process     fnce_partial_rows, fnce_finish   its own rows of the merged partial -> loss and gradients
 *
 * A process has two plans: one for its own rows (prep, finish) and one for all rows (partial, merge). They share d, structure
 * and temperature; problem.k is the shard's size, problem.n the number of rows of that plan's calls. FNCE_REDUCTION_MEAN
 * divides by the n of the plan that finishes, the process's own rows. The draws do not depend on how the negatives are
 * sharded. A shard may be empty (k = 0). */

/* What the negatives need to know of a row. Device memory. */
typedef struct fnce_anchors {
  void* anchor;                 /* [N,D] float32: a of equation (6), with the values that the negatives are multiplied by */
  float* pos;                   /* [N] q^.k^, k^ rounded to queue_type: what ranks compare with; may be NULL if
                                   problem.scores has no FNCE_SCORES_MIXED                                            */
  float* unmixed_pos;           /* [N] q.k likewise; may be NULL if problem.scores has no FNCE_SCORES_UNMIXED         */
  void* reserved[2];            /* NULL, or FNCE_UNSUPPORTED                                                          */
} fnce_anchors;

/* Equations (1), (2), (4), (6): writes the anchors of the plan's rows. */
FNCE_API fnce_status fnce_prep(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors, void* workspace,
                               size_t workspace_bytes, fnce_stream stream);

/* Where a partial keeps what; offsets in bytes from its start. float32 unless said otherwise. */
typedef struct fnce_layout {
  uint64_t struct_size;
  uint64_t bytes;               /* of the whole partial                                                               */
  uint64_t m;                   /* [N] the row's reference: the negatives' maximal score / temperature, or up to 28 below
                                   it; -1e30 without columns                                                          */
  uint64_t l;                   /* [N] sum of exp(s - m), up to 2^40 per column                                       */
  uint64_t o;                   /* [N,D] sum of exp(s - m) times the negative                                         */
  uint64_t count[2];            /* int64 [N] number of columns; [0] mixed, [1] unmixed; 0 if not gathered             */
  uint64_t mean[2];             /* [N]                                                                                */
  uint64_t m2[2];               /* [N] sum of squared deviations from the mean: merge by Chan's formula               */
  uint64_t min[2];              /* [N]                                                                                */
  uint64_t max[2];              /* [N]                                                                                */
  uint64_t n_greater[2];        /* int64 [N]                                                                          */
  uint64_t n_greater_equal[2];  /* int64 [N]                                                                          */
  uint64_t unmixed_m;           /* [N] m and l of the unmixed scores, for their log-mean-exp; 0 if not gathered       */
  uint64_t unmixed_l;           /* [N]                                                                                */
} fnce_layout;

/* The layout of the partials of this plan. `size` is the caller's sizeof(fnce_layout). */
FNCE_API fnce_status fnce_partial_layout(const fnce_plan* plan, fnce_layout* layout, size_t size);
/* The plan's negatives against `anchors` (of problem.n rows): writes all arrays of `partial`, device memory of
 * `partial_bytes`. Of `args`, queue, lambda_neg, permutation and the numbers are used. */
FNCE_API fnce_status fnce_partial(const fnce_plan* plan, const fnce_args* args, const fnce_anchors* anchors, void* partial,
                                  size_t partial_bytes, void* workspace, size_t workspace_bytes, fnce_stream stream);
/* Merges `count` partials of plans with equal n, d and scores, in the order given, into `out` (which may be partials[0]). */
FNCE_API fnce_status fnce_merge(const fnce_plan* plan, const void* const* partials, int32_t count, void* out,
                                size_t partial_bytes, fnce_stream stream);
/* Copies rows first_row .. first_row + n - 1 of `partial`, one of `partial_plan`, to `out`, a partial of `plan` (whose n it
 * is; d and scores are equal). `partial_bytes` is the size of `out`. */
FNCE_API fnce_status fnce_partial_rows(const fnce_plan* partial_plan, const void* partial, int64_t first_row,
                                       const fnce_plan* plan, void* out, size_t partial_bytes, fnce_stream stream);
/* Adds the positives of the plan's rows: everything that fnce_loss writes. x_q, x_k and the draws must be those of
 * fnce_prep. */
FNCE_API fnce_status fnce_finish(const fnce_plan* plan, const fnce_args* args, const void* partial, size_t partial_bytes,
                                 void* workspace, size_t workspace_bytes, fnce_stream stream);

/* ---- 9. Stateless calls ------------------------------------------------------------------------------------------ */

/* fnce_plan_workspace and fnce_loss without a plan: plans are kept in a cache inside the library, keyed by the problem's
 * bytes (the 256 used last). For callers that cannot hold state, such as a compiler's foreign function interface. Such a
 * caller sets problem.threads, so that the size it asked for once stays right. Thread-safe. */
FNCE_API fnce_status fnce_run_workspace(const fnce_problem* problem, size_t* bytes);
FNCE_API fnce_status fnce_run(const fnce_problem* problem, const fnce_args* args, void* workspace, size_t workspace_bytes,
                              fnce_stream stream);

/* ---- 10. Inspection ---------------------------------------------------------------------------------------------- */

/* The lambda that a call with these arguments uses where it is SAMPLED: host memory, in row order, [1] | [R] | [D] | [R,D].
 * `count` is the length of `out` and must be that of the shape. Values behind a *_pointer must be host-readable.
 * Errors: FNCE_INVALID_ARGUMENT (also: no mixing, or GIVEN). */
FNCE_API fnce_status fnce_sample_lambda_pos(const fnce_problem* problem, const fnce_args* args, float* out, int64_t count);
FNCE_API fnce_status fnce_sample_lambda_neg(const fnce_problem* problem, const fnce_args* args, float* out, int64_t count);
/* The permutation pi that such a call uses where it is SAMPLED: host memory, [K], indices of this shard's rows. */
FNCE_API fnce_status fnce_permutation(const fnce_problem* problem, const fnce_args* args, int32_t* out, int64_t count);

/* Number of devices of a kind that can be used; FNCE_OK with 0 where there is none. */
FNCE_API fnce_status fnce_device_count(int32_t device, int32_t* count);
/* One line: version, compiled backends, the CPU's instruction set in use and those that can be forced. Static storage. */
FNCE_API const char* fnce_build_info(void);
/* The process's default number of CPU threads, at first the number of CPUs this process may run on. 1 .. 1024. Plans made
 * before keep theirs; fnce_scale and fnce_queue_push always use the present one. The instruction set is chosen once, the best
 * that the processor has; FNCE_CPU_ISA in the environment forces another one: baseline, avx2, avx512, avx512_bf16 or amx; neon
 * on arm64 (plans fail where the processor lacks it; fnce_build_info lists what there is). For tests, FNCE_CPU_MAX_ISA with one of
 * these names makes the library see a processor that has nothing beyond it (plans fail if it is another name). */
FNCE_API fnce_status fnce_set_threads(int32_t threads);
FNCE_API int32_t fnce_get_threads(void);

#ifdef __cplusplus
}
#endif
#endif /* FLASHNCE_FLASHNCE_H */
