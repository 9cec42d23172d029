// Calls of the library on a device, in the structures and element types that its kernels differ by: what the programs
// of ./dev verify-gpu repeat, capture, run side by side and for a long time.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "gpu/memory.h"

namespace fnce::gpu {

struct Case {
  const char* name;
  int32_t preset;
  int64_t n, k, d;
  int32_t feature_type = FNCE_FLOAT32, queue_type = FNCE_FLOAT32;
  int32_t precision = FNCE_PRECISION_EXACT;
  int32_t lambda_neg = -1;  // FNCE_LAMBDA_*; -1: the preset's
  int32_t columns = -1;
  int32_t scores = FNCE_SCORES_NONE;
  bool gives_permutation = false;  // and has it checked, rather than drawn
  bool renormalizes = false;
  float queue_norm = 1;
  int64_t batch = 0;                      // batch columns, with their gradient
  bool masks = false, decoupled = false;  // ids, biases and a margin
  int block_rows =
      0;  // planned as for one multiprocessor, where few queries take large tiles; blocks must have so many rows
};

// One case for each way through the kernels: small ones, and some of the sizes of training.
std::vector<Case> small_cases();
std::vector<Case> training_cases();

// Random features, keys near them, unit rows as negatives; rounded to the case's types.
struct Inputs {
  Memory x_q, x_k, queue, permutation;
  Memory x_c, query_ids, column_ids, batch_ids, column_bias, batch_bias, upstream;
};
std::shared_ptr<const Inputs> inputs_of(const Case& c, uint64_t seed = 1);

class Plan {
 public:
  explicit Plan(const Case& c);
  ~Plan() { fnce_plan_destroy(plan_); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  const fnce_plan* get() const { return plan_; }
  const fnce_problem& problem() const { return problem_; }
  const fnce_plan_info& info() const { return info_; }
  size_t workspace_bytes() const;

 private:
  fnce_problem problem_;
  fnce_plan_info info_;
  fnce_plan* plan_ = nullptr;
};

// A planned call with outputs and a workspace of its own; numbers lie in device memory.
class Call {
 public:
  Call(std::shared_ptr<const Plan> plan, std::shared_ptr<const Inputs> inputs);

  // Writes seed, offset and temperature to device memory.
  void set(uint64_t seed, uint64_t offset, float temperature);
  // Overwrites outputs and workspace with a pattern. Until then they hold what was in memory, which lets initcheck see
  // whoever reads them unwritten.
  void spoil();
  // The loss, and the gradient of batch columns.
  void enqueue(const Stream& stream) const;
  // The same in steps, through the anchors and a partial of this call's own.
  void enqueue_steps(const Stream& stream) const;
  // All outputs, byte by byte.
  std::vector<unsigned char> results() const;
  // The loss, where it is one number.
  float loss() const;
  const fnce_args& args() const { return args_; }

 private:
  void set_columns();
  // Given anchors, or null.
  void enqueue_backward(const fnce_anchors* anchors, const Stream& stream) const;

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<const Inputs> inputs_;
  fnce_args args_{};
  Memory workspace_, loss_, dq_, dk_, dtemperature_rows_, dtemperature_, floats_, integers_, numbers_;
  Memory anchor_, positives_, partial_, log_sum_exp_, dx_c_;
};

// A sentence where two results differ, else "".
std::string difference(const std::vector<unsigned char>& a, const std::vector<unsigned char>& b);

}  // namespace fnce::gpu
