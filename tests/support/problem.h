// One call of the library as a test sees it: host arrays and options in, host arrays out. Everything in between
// (device memory with guard zones, plan, workspace of exactly the queried size) and the checks that hold for every
// call (status, guard zones, inputs unchanged) are here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "flashnce/flashnce.h"
#include "support/device.h"
#include "support/elements.h"

namespace support {

// What is uploaded, as floats. Features and queue are rounded to their element types on the way; fill_inputs rounds
// them before, so that an array holds what the library sees.
struct Arrays {
  std::vector<float> x_q, x_k, queue;                     // [N,D] [N,D] [K,D]
  std::vector<float> weight;                              // [N] or empty: NULL
  std::vector<float> lambda_pos, lambda_neg;              // where GIVEN
  std::vector<int32_t> permutation;                       // where GIVEN
  std::vector<float> x_c;                                 // [C,D]
  std::vector<int64_t> query_ids, column_ids, batch_ids;  // [N] [K] [C] with id_mask
  std::vector<float> column_bias, batch_bias;             // [K] [C] with column_bias
  std::vector<float> upstream{1.0f};                      // [1] or [N], of fnce_columns_backward
};

// Which outputs are asked for.
struct Want {
  bool loss = true, dq = true, dk = true, dtemperature_rows = true, dtemperature = true;
  bool log_sum_exp = false, dx_c = false;  // dx_c by fnce_columns_backward, which needs the log-sum-exps
};

struct Case {
  std::string label;
  fnce_problem problem;
  fnce_args numbers;  // temperature, alphas, epsilon, seed, offset; no pointers
  Arrays arrays;
  Want want;
  bool numbers_by_pointer = false;
  size_t skew = 0;  // bytes past an aligned address that every array starts at; half as many for 16-bit elements
};

struct Statistics {
  std::vector<float> pos, neg_mean, neg_variance, neg_min, neg_max, neg_log_mean_exp, entropy, dq_norm;
  std::vector<int64_t> neg_count, n_greater, n_greater_equal;
};

struct Outputs {
  std::vector<float> loss, dq, dk, dtemperature_rows, dtemperature, log_sum_exp, dx_c;
  Statistics mixed, unmixed;
};

// A preset with sizes and arrays still empty; the problem's device is the tests' device.
Case make_case(int32_t preset, int64_t n, int64_t k, int64_t d);

// The case's element types; to be called before fill_inputs.
void set_types(Case& c, int32_t feature, int32_t queue, int32_t gradient);

// Throws std::runtime_error with the library's sentence unless the status is FNCE_OK.
void require_ok(fnce_status status);

class Plan {
 public:
  explicit Plan(const fnce_problem& problem);
  ~Plan() { fnce_plan_destroy(plan_); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  const fnce_plan* get() const { return plan_; }
  size_t workspace_bytes() const;
  fnce_plan_info info() const;

 private:
  fnce_plan* plan_ = nullptr;
};

// The buffers of fnce_score_buffers. `of_loss`: with entropy, unless there is a bias, and dq_norm.
class StatisticsBuffers {
 public:
  StatisticsBuffers(int64_t rows, bool of_loss, bool with_bias = false);
  fnce_score_buffers pointers() const;
  Statistics values() const;
  bool guards_intact() const;
  bool untouched() const;

 private:
  bool of_loss_;
  Buffer<float> pos_, mean_, variance_, min_, max_, log_mean_exp_, entropy_, dq_norm_;
  Buffer<int64_t> count_, greater_, greater_equal_;
};

// Device memory of a case's inputs and outputs, and the fnce_args that point to it.
class Call {
 public:
  explicit Call(const Case& c);
  fnce_args args;
  // fnce_columns_backward of the case; `anchors` may be null. Throws unless it leaves all other outputs alone.
  void run_backward(const Plan& plan, const fnce_anchors* anchors, const Buffer<unsigned char>& workspace);
  Outputs outputs() const;
  bool outputs_untouched() const;
  // Throws std::runtime_error if a guard zone or an input has changed.
  void check_memory() const;

 private:
  const Arrays arrays_;
  const fnce_args numbers_;
  int64_t rows_;
  Elements x_q_, x_k_, queue_, x_c_;
  Buffer<float> weight_, lambda_pos_, lambda_neg_;
  Buffer<int32_t> permutation_;
  Buffer<int64_t> query_ids_, column_ids_, batch_ids_;
  Buffer<float> column_bias_, batch_bias_, upstream_;
  Buffer<float> floats_;       // temperature, alpha_pos, shift_pos, alpha_neg, shift_neg behind pointers
  Buffer<uint64_t> integers_;  // seed, offset
  Elements dq_, dk_, dx_c_;
  Buffer<float> loss_, dtemperature_rows_, dtemperature_, log_sum_exp_;
  StatisticsBuffers mixed_, unmixed_;
};

// The whole call: plan, workspace filled with `garbage`, fnce_loss, fnce_columns_backward if dx_c is wanted, checks of
// memory.
Outputs run_loss(const Case& c, unsigned char garbage = 0xFF);
// The same with a plan of the caller's.
Outputs run_loss(const Case& c, const Plan& plan, unsigned char garbage = 0xFF);
// fnce_columns_backward. A library that lacks it is an error of the call, so that programs which do without run with
// it.
fnce_status columns_backward(const Plan& plan, const fnce_args& args, const fnce_anchors* anchors,
                             const float* log_sum_exp, const Buffer<float>& upstream, void* dx_c,
                             const Buffer<unsigned char>& workspace);
// fnce_scores of the case.
Statistics run_scores(const Case& c);

// A workspace of a plan, filled with `garbage`.
Buffer<unsigned char> make_workspace(const Plan& plan, unsigned char garbage = 0xFF);

// What the case draws or is given, by fnce_sample_lambda_*, fnce_permutation; empty without mixing.
std::vector<float> lambda_pos_of(const Case& c);
std::vector<float> lambda_neg_of(const Case& c);
std::vector<int32_t> permutation_of(const Case& c);

// True if two results have the same bits.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
bool same_bits(const Statistics& a, const Statistics& b);
bool same_bits(const Outputs& a, const Outputs& b);

}  // namespace support
