// A backend, as the rest of the library sees it. It receives checked problems and arguments only; it knows core and
// math and no other backend. src/registry.cpp alone names the backends.
#pragma once
#include <flashnce/flashnce.h>

#include <memory>
#include <string>

#include "core/args.h"
#include "core/problem.h"
#include "core/status.h"

namespace fnce {

// The checked arguments of fnce_scale.
struct ScaleCall {
  int32_t device_index;
  const float* gradient;
  int64_t rows, columns;
  const float* upstream;
  bool per_row;
  int32_t out_type;
  void* out;
};

// The checked arguments of fnce_columns_backward beside fnce_args.
struct ColumnsCall {
  const fnce_anchors* anchors;  // null: they are made from x_q and x_k
  const float* log_sum_exp;     // [N]
  const float* upstream;
  bool per_row;  // upstream is [N], else [1]
  void* dx_c;    // [C,D] gradient_type
};

// The checked arguments of fnce_symmetric and of its backward pass.
struct PairsCall {
  const fnce_pairs& pairs;
  const float* upstream;  // null: forward
  bool per_row;           // upstream is [N], else [1]
  void* workspace;
};

// One call's arguments and its workspace.
struct Call {
  const Args& args;
  void* workspace;
  fnce_stream stream;
};

// A backend's part of a plan: immutable, used from many threads at once.
class BackendPlan {
 public:
  virtual ~BackendPlan() = default;
  virtual uint64_t workspace_bytes() const = 0;
  // All that fnce_plan_get_info tells; core/plan_info.h has the part that is the same everywhere, and the words.
  virtual fnce_plan_info info() const = 0;
  // fnce_loss = prep, partial, finish on a partial inside the workspace.
  virtual void loss(const Call& call) const = 0;
  virtual void prep(const Call& call, const fnce_anchors& anchors) const = 0;
  virtual void partial(const Call& call, const fnce_anchors& anchors, void* partial) const = 0;
  virtual void merge(const void* const* partials, int32_t count, void* out, fnce_stream stream) const = 0;
  // Copies rows first_row .. of a partial of `from`, whose d and scores are equal, into a partial of this plan.
  virtual void take_rows(const void* partial, const Problem& from, int64_t first_row, void* out,
                         fnce_stream stream) const = 0;
  virtual void finish(const Call& call, const void* partial) const = 0;
  // The gradient of the batch columns, equation (16).
  virtual void columns_backward(const Call& call, const ColumnsCall& columns) const = 0;
  virtual void scores(const Call& call, const fnce_score_buffers& out) const = 0;
  // Equation (17), of plans whose problem is symmetric: a backend that refuses such problems has none of it.
  virtual void symmetric(const PairsCall&) const {
    throw StatusError(FNCE_UNSUPPORTED, "this backend has no symmetric loss");
  }
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  virtual int32_t device() const = 0;
  virtual int32_t device_count() const = 0;
  // Where there is none: the reason, in words.
  virtual std::string why_no_device() const { return ""; }
  // True if the host can read this device's memory: then numbers behind pointers are checked before anything runs.
  virtual bool host_memory() const = 0;
  virtual std::string build_info() const = 0;
  // Null if another backend should take the problem.
  virtual std::unique_ptr<BackendPlan> plan(const Problem& problem) const = 0;
  virtual void scale(const ScaleCall& call, fnce_stream stream) const = 0;
  virtual void queue_push(const fnce_push& push, fnce_stream stream) const = 0;
};

}  // namespace fnce
