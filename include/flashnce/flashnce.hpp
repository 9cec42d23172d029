/* FlashNCE for C++17: the C interface of flashnce.h with owners and exceptions, and nothing in between.
 *
 *   Error                 a call that does not return FNCE_OK throws it: the status and the library's sentence
 *   Problem, Args, Push   the C structs, filled when they are made; fields are set as in C
 *   Plan                  owns a fnce_plan
 *   Workspace             owns aligned host memory, for workspaces and for partials
 *   loss, scale, push, scores, prep, partial, merge, partial_rows, finish, columns_backward,
 *   symmetric, symmetric_backward, run, ...   the calls
 *
 * A minimal program:
 *
 *     flashnce::Problem problem(flashnce::Preset::ft, 256, 65536, 128);
 *     flashnce::Plan plan(problem);
 *     flashnce::Workspace workspace(plan);
 *     flashnce::Args args;
 *     args.x_q = x_q.data(); args.x_k = x_k.data(); args.queue = queue.data();
 *     args.loss = &loss; args.dq = dq.data(); args.seed = step;
 *     flashnce::loss(plan, args, workspace);
 *
 * flashnce.h is the reference: names, fields, shapes and errors are the same here, without the prefix fnce_. Arrays
 * are passed as pointers (std::vector: data()), never copied, and must live as long as the call; on a GPU as long as
 * the work on the stream. Calls take the C structs by reference, so that Problem, Args and Push serve as well as
 * structs that C code filled. As in C, a Plan may serve many threads at the same time, and a Workspace serves one call.
 *
 * This header is inline code only: it needs flashnce.h and the C++17 library, and adds nothing to the binary interface.
 */
#ifndef FLASHNCE_FLASHNCE_HPP
#define FLASHNCE_FLASHNCE_HPP

#include <flashnce/flashnce.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace flashnce {

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

/* what() is "FNCE_INVALID_ARGUMENT: problem.n is -1; allowed: 1 .. 2147483647". */
class Error : public std::runtime_error {
 public:
  Error(fnce_status status, const char* sentence)
      : std::runtime_error(std::string(fnce_status_string(status)) + ": " + sentence), status_(status) {}

  fnce_status status() const noexcept { return status_; }

 private:
  fnce_status status_;
};

/* Throws Error, with the sentence of this thread's last failing call, unless `status` is FNCE_OK. Use it for calls of
 * the C interface among those of this one. */
inline void check(fnce_status status) {
  if (status != FNCE_OK) throw Error(status, fnce_last_error());
}

/* ---- The problem and its arguments ------------------------------------------------------------------------------- */

enum class Preset : std::int32_t {
  moco = FNCE_PRESET_MOCO,
  ft = FNCE_PRESET_FT,
  ft_elementwise = FNCE_PRESET_FT_ELEMENTWISE
};

/* fnce_problem, filled with a preset: N queries, K negatives, D features. */
struct Problem : fnce_problem {
  explicit Problem(Preset preset) {
    check(fnce_problem_init(this, sizeof(fnce_problem), static_cast<std::int32_t>(preset)));
  }
  Problem(Preset preset, std::int64_t n_queries, std::int64_t k_negatives, std::int64_t d_features) : Problem(preset) {
    n = n_queries;
    k = k_negatives;
    d = d_features;
  }
};

/* fnce_args with their defaults: no pointers, temperature 0.07, the alphas and shifts of the feature transformation. */
struct Args : fnce_args {
  Args() { check(fnce_args_init(this, sizeof(fnce_args))); }
};

/* fnce_push with its defaults: CPU, float32, normalised. */
struct Push : fnce_push {
  Push() { check(fnce_push_init(this, sizeof(fnce_push))); }
};

/* fnce_pairs with its defaults: no pointers, temperature 0.07. */
struct Pairs : fnce_pairs {
  Pairs() { check(fnce_pairs_init(this, sizeof(fnce_pairs))); }
};

/* ---- Owners ------------------------------------------------------------------------------------------------------ */

/* A checked problem with its backend and tiling, immutable. A Plan is moved, not copied; one that has been moved from
 * holds nothing, and calls with it throw. */
class Plan {
 public:
  explicit Plan(const fnce_problem& problem) { check(fnce_plan_create(&problem, &plan_)); }
  Plan(Plan&& other) noexcept : plan_(std::exchange(other.plan_, nullptr)) {}
  Plan& operator=(Plan&& other) noexcept {
    Plan taken(std::move(other));
    std::swap(plan_, taken.plan_);
    return *this;
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() { fnce_plan_destroy(plan_); }

  /* The plan for calls of the C interface; null after a move. */
  const fnce_plan* get() const noexcept { return plan_; }
  /* Bytes of device memory that calls with this plan need. */
  std::size_t workspace_bytes() const {
    std::size_t bytes = 0;
    check(fnce_plan_workspace(plan_, &bytes));
    return bytes;
  }
  /* Says in words what would run, and why; the plan owns the text. */
  const char* describe() const noexcept { return fnce_plan_describe(plan_); }
  /* The same as numbers. */
  fnce_plan_info info() const {
    fnce_plan_info info;
    check(fnce_plan_get_info(plan_, &info, sizeof info));
    return info;
  }
  /* The layout of this plan's partials; `bytes` is the size of one. */
  fnce_layout partial_layout() const {
    fnce_layout layout;
    check(fnce_partial_layout(plan_, &layout, sizeof layout));
    return layout;
  }

 private:
  fnce_plan* plan_ = nullptr;
};

/* Uninitialised host memory, aligned to FNCE_ALIGNMENT: a workspace, or a partial. It is moved, not copied. The
 * constructor throws std::bad_alloc. For another device than the CPU, pass memory of that device to the calls that take
 * a pointer. */
class Workspace {
 public:
  explicit Workspace(std::size_t bytes)
      : data_(::operator new (bytes, std::align_val_t{FNCE_ALIGNMENT})), size_(bytes) {}
  explicit Workspace(const Plan& plan) : Workspace(plan.workspace_bytes()) {}
  Workspace(Workspace&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, std::size_t{0})) {}
  Workspace& operator=(Workspace&& other) noexcept {
    Workspace taken(std::move(other));
    std::swap(data_, taken.data_);
    std::swap(size_, taken.size_);
    return *this;
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { ::operator delete (data_, std::align_val_t{FNCE_ALIGNMENT}); }

  void* data() noexcept { return data_; }
  const void* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  void* data_;
  std::size_t size_;
};

/* ---- The loss ---------------------------------------------------------------------------------------------------- */

/* Computes the loss of equation (7), and the gradients and statistics whose pointers `args` has. */
inline void loss(const Plan& plan, const fnce_args& args, void* workspace, std::size_t workspace_bytes,
                 fnce_stream stream = nullptr) {
  check(fnce_loss(plan.get(), &args, workspace, workspace_bytes, stream));
}
inline void loss(const Plan& plan, const fnce_args& args, Workspace& workspace) {
  loss(plan, args, workspace.data(), workspace.size());
}

/* The same without a plan: the library keeps one per problem. */
inline std::size_t run_workspace(const fnce_problem& problem) {
  std::size_t bytes = 0;
  check(fnce_run_workspace(&problem, &bytes));
  return bytes;
}
inline void run(const fnce_problem& problem, const fnce_args& args, void* workspace, std::size_t workspace_bytes,
                fnce_stream stream = nullptr) {
  check(fnce_run(&problem, &args, workspace, workspace_bytes, stream));
}
inline void run(const fnce_problem& problem, const fnce_args& args, Workspace& workspace) {
  run(problem, args, workspace.data(), workspace.size());
}

/* Writes out[i,c] = upstream * gradient[i,c] in host memory, with one upstream for all rows; both are [rows,columns]
 * float32. */
inline void scale(const float* gradient, std::int64_t rows, std::int64_t columns, float upstream, float* out) {
  check(fnce_scale(FNCE_CPU, 0, gradient, rows, columns, &upstream, 1, FNCE_FLOAT32, out, nullptr));
}
/* The same as fnce_scale: any device, one upstream or one per row, any element type. */
inline void scale(std::int32_t device, std::int32_t device_index, const float* gradient, std::int64_t rows,
                  std::int64_t columns, const float* upstream, std::int64_t upstream_count, std::int32_t out_type,
                  void* out, fnce_stream stream = nullptr) {
  check(fnce_scale(device, device_index, gradient, rows, columns, upstream, upstream_count, out_type, out, stream));
}

/* Writes a batch of keys into the ring of negatives, equation (10). */
inline void push(const fnce_push& keys, fnce_stream stream = nullptr) { check(fnce_queue_push(&keys, stream)); }

/* Computes the statistics of the scores before any transformation. */
inline void scores(const Plan& plan, const fnce_args& args, const fnce_score_buffers& out, void* workspace,
                   std::size_t workspace_bytes, fnce_stream stream = nullptr) {
  check(fnce_scores(plan.get(), &args, &out, workspace, workspace_bytes, stream));
}
inline void scores(const Plan& plan, const fnce_args& args, const fnce_score_buffers& out, Workspace& workspace) {
  scores(plan, args, out, workspace.data(), workspace.size());
}

/* ---- The loss in steps ------------------------------------------------------------------------------------------- */

/* Writes the anchors of the plan's rows, equations (1), (2), (4), (6). */
inline void prep(const Plan& plan, const fnce_args& args, const fnce_anchors& anchors, void* workspace,
                 std::size_t workspace_bytes, fnce_stream stream = nullptr) {
  check(fnce_prep(plan.get(), &args, &anchors, workspace, workspace_bytes, stream));
}
inline void prep(const Plan& plan, const fnce_args& args, const fnce_anchors& anchors, Workspace& workspace) {
  prep(plan, args, anchors, workspace.data(), workspace.size());
}

/* Runs the plan's negatives against `anchors` and writes a partial. */
inline void partial(const Plan& plan, const fnce_args& args, const fnce_anchors& anchors, void* out,
                    std::size_t out_bytes, void* workspace, std::size_t workspace_bytes, fnce_stream stream = nullptr) {
  check(fnce_partial(plan.get(), &args, &anchors, out, out_bytes, workspace, workspace_bytes, stream));
}
inline void partial(const Plan& plan, const fnce_args& args, const fnce_anchors& anchors, Workspace& out,
                    Workspace& workspace) {
  partial(plan, args, anchors, out.data(), out.size(), workspace.data(), workspace.size());
}

/* Merges `count` partials, in the order given, into `out` (which may be partials[0]). */
inline void merge(const Plan& plan, const void* const* partials, std::int32_t count, void* out, std::size_t out_bytes,
                  fnce_stream stream = nullptr) {
  check(fnce_merge(plan.get(), partials, count, out, out_bytes, stream));
}

/* Copies rows first_row .. first_row + n - 1 of a partial of `partial_plan` into one of `plan`. */
inline void partial_rows(const Plan& partial_plan, const void* partial, std::int64_t first_row, const Plan& plan,
                         void* out, std::size_t out_bytes, fnce_stream stream = nullptr) {
  check(fnce_partial_rows(partial_plan.get(), partial, first_row, plan.get(), out, out_bytes, stream));
}

/* Adds the positives and writes everything that loss() writes. */
inline void finish(const Plan& plan, const fnce_args& args, const void* partial, std::size_t partial_bytes,
                   void* workspace, std::size_t workspace_bytes, fnce_stream stream = nullptr) {
  check(fnce_finish(plan.get(), &args, partial, partial_bytes, workspace, workspace_bytes, stream));
}
inline void finish(const Plan& plan, const fnce_args& args, const Workspace& partial, Workspace& workspace) {
  finish(plan, args, partial.data(), partial.size(), workspace.data(), workspace.size());
}

/* ---- The gradient of batch columns ------------------------------------------------------------------------------- */

/* Writes dx_c, the gradient of the batch columns, equation (16), from the log-sum-exps that loss() or finish() wrote
 * and the upstream gradient, one for all rows or one per row. `anchors` may be null: they are made again. */
inline void columns_backward(const Plan& plan, const fnce_args& args, const fnce_anchors* anchors,
                             const float* log_sum_exp, const float* upstream, std::int64_t upstream_count, void* dx_c,
                             void* workspace, std::size_t workspace_bytes, fnce_stream stream = nullptr) {
  check(fnce_columns_backward(plan.get(), &args, anchors, log_sum_exp, upstream, upstream_count, dx_c, workspace,
                              workspace_bytes, stream));
}
/* The same in host memory, with one upstream for all rows. */
inline void columns_backward(const Plan& plan, const fnce_args& args, const float* log_sum_exp, float upstream,
                             void* dx_c, Workspace& workspace) {
  columns_backward(plan, args, nullptr, log_sum_exp, &upstream, 1, dx_c, workspace.data(), workspace.size());
}

/* ---- Both directions of a batch of pairs ------------------------------------------------------------------------- */

/* Writes the symmetric loss of equation (17), and the log-sum-exps that its backward pass needs. */
inline void symmetric(const Plan& plan, const fnce_pairs& pairs, void* workspace, std::size_t workspace_bytes,
                      fnce_stream stream = nullptr) {
  check(fnce_symmetric(plan.get(), &pairs, workspace, workspace_bytes, stream));
}
inline void symmetric(const Plan& plan, const fnce_pairs& pairs, Workspace& workspace) {
  symmetric(plan, pairs, workspace.data(), workspace.size());
}

/* Writes da, db and dtemperature for the upstream gradient, one for all pairs or one per pair. */
inline void symmetric_backward(const Plan& plan, const fnce_pairs& pairs, const float* upstream,
                               std::int64_t upstream_count, void* workspace, std::size_t workspace_bytes,
                               fnce_stream stream = nullptr) {
  check(fnce_symmetric_backward(plan.get(), &pairs, upstream, upstream_count, workspace, workspace_bytes, stream));
}
/* The same in host memory, with one upstream for all pairs. */
inline void symmetric_backward(const Plan& plan, const fnce_pairs& pairs, float upstream, Workspace& workspace) {
  symmetric_backward(plan, pairs, &upstream, 1, workspace.data(), workspace.size());
}

/* ---- Inspection -------------------------------------------------------------------------------------------------- */

/* The number of lambdas of a granularity over `rows` rows (N for the positives, K for the negatives) of d features: the
 * length of a given lambda, and of a sampled one. It is 0 without mixing, and for sizes that no problem can have. */
inline std::int64_t lambda_count(std::int32_t granularity, std::int64_t rows, std::int64_t d) noexcept {
  if (rows < 0 || d < 0 || (d > 0 && rows > std::numeric_limits<std::int64_t>::max() / d)) return 0;
  switch (granularity) {
    case FNCE_LAMBDA_CALL: return 1;
    case FNCE_LAMBDA_ROW: return rows;
    case FNCE_LAMBDA_DIMENSION: return d;
    case FNCE_LAMBDA_ELEMENT: return rows * d;
    default: return 0;
  }
}

/* The draws of a call with these arguments, where they are SAMPLED: lambda in row order, indices of this shard's
 * rows. */
inline std::vector<float> sample_lambda_pos(const fnce_problem& problem, const fnce_args& args) {
  std::vector<float> out(static_cast<std::size_t>(lambda_count(problem.lambda_pos, problem.n, problem.d)));
  check(fnce_sample_lambda_pos(&problem, &args, out.data(), static_cast<std::int64_t>(out.size())));
  return out;
}
inline std::vector<float> sample_lambda_neg(const fnce_problem& problem, const fnce_args& args) {
  std::vector<float> out(static_cast<std::size_t>(lambda_count(problem.lambda_neg, problem.k, problem.d)));
  check(fnce_sample_lambda_neg(&problem, &args, out.data(), static_cast<std::int64_t>(out.size())));
  return out;
}
inline std::vector<std::int32_t> permutation(const fnce_problem& problem, const fnce_args& args) {
  std::vector<std::int32_t> out(problem.k > 0 ? static_cast<std::size_t>(problem.k) : std::size_t{0});
  check(fnce_permutation(&problem, &args, out.data(), static_cast<std::int64_t>(out.size())));
  return out;
}

/* Usable devices of a kind, FNCE_CPU or FNCE_CUDA. */
inline std::int32_t device_count(std::int32_t device) {
  std::int32_t count = 0;
  check(fnce_device_count(device, &count));
  return count;
}

/* The process's default number of CPU threads. */
inline void set_threads(std::int32_t threads) { check(fnce_set_threads(threads)); }
inline std::int32_t get_threads() noexcept { return fnce_get_threads(); }

/* The loaded library in one line: version, backends, instruction set. version() has the form of FNCE_VERSION. */
inline const char* build_info() noexcept { return fnce_build_info(); }
inline std::int32_t version() noexcept { return fnce_version(); }

}  // namespace flashnce

#endif /* FLASHNCE_FLASHNCE_HPP */
