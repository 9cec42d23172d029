// One fnce_args with all its memory, made from a fuzzer's bytes for a valid problem: plausible or odd numbers, arrays
// of any content, and perhaps one thing that is wrong. And what must hold for any call, refused or not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "flashnce/flashnce.h"
#include "fuzz/input.h"
#include "fuzz/memory.h"
#include "fuzz/problems.h"

namespace fuzz {

// The parts of fnce_args that a call reads.
struct Uses {
  bool features = false, negatives = false, lambda_pos = false, lambda_neg = false, outputs = false;
  bool temperature = true;
  bool queue = true;  // it is one of the negatives
};
constexpr Uses kUsesOfLoss{true, true, true, true, true}, kUsesOfScores{true, true}, kUsesOfPrep{true, false, true};
constexpr Uses kUsesOfPartial{false, true, false, true}, kUsesOfFinish{true, false, true, false, true};
constexpr Uses kUsesOfColumns{true, true, true, false, false, true, false};
constexpr Uses kUsesOfColumnsOfAnchors{false, true, false, false, false, true, false};

class Arguments {
 public:
  Arguments(Input& input, const fnce_problem& problem, const Uses& uses);

  const fnce_args* pointer() const { return reinterpret_cast<const fnce_args*>(struct_->bytes()); }
  Verdict verdict() const { return verdict_; }
  const std::vector<Block*>& outputs() const { return outputs_; }
  // The loss must be finite: every number is plausible, and the call does not have to be refused.
  bool tame() const { return tame_; }
  // Null if not asked for.
  const Block* loss() const { return loss_; }

 private:
  Block* add(size_t bytes, Block::Kind kind, size_t element);
  Block* output(size_t count, size_t element);
  Block* features(Input& input, int64_t count, int32_t type, float scale);
  void read_inputs(Input& input);
  void read_columns(Input& input);
  int64_t* ids(Input& input, int64_t count);
  void read_lambdas(Input& input);
  void read_numbers(Input& input);
  void put_behind_pointers(Input& input);
  void read_outputs(Input& input);
  void read_statistics(Input& input, fnce_score_buffers& buffers, bool of_loss);
  void spoil(Input& input);
  void spoil_pointer(Input& input);
  void spoil_number(Input& input);
  void spoil_struct(Input& input);
  void spoil_columns(Input& input);
  void refuse_if(bool wrong) { verdict_ = wrong ? Verdict::kRefused : verdict_; }

  const fnce_problem problem_;
  const Uses uses_;
  fnce_args args_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Block*> outputs_;
  Block* struct_ = nullptr;
  Block* loss_ = nullptr;
  Verdict verdict_ = Verdict::kAccepted;
  bool tame_ = true;
  size_t skew_ = 0;
};

// Fills an array of `count` numbers: plain ones of about `scale`, or zeros, equal rows, subnormal numbers, arbitrary
// bits. False if they may be infinite, NaN or huge.
bool fill_numbers(Input& input, Block& block, int64_t count, int32_t type, float scale);

// A call that may be repeated. `again` is run before each attempt (to refill a workspace with other garbage).
struct Attempt {
  std::function<fnce_status()> call;
  std::vector<Block*> outputs;
  Verdict verdict = Verdict::kAccepted;
  const Block* loss = nullptr;    // must be finite on FNCE_OK
  bool writes_everything = true;  // every byte of the outputs is written, so their former content does not show
};

// Runs it twice. Refused: every output is as it was, and fnce_last_error() names a field. Not refused: both times the
// same bits, guards intact.
void attempt(const Attempt& a);

// fnce_columns_backward of the plan; `anchors` may be null, `fit` says whether they can be used.
void attempt_backward(Input& input, const fnce_problem& problem, const fnce_plan* plan, const fnce_anchors* anchors,
                      bool fit);

// fnce_symmetric or its backward pass, of a plan whose problem is symmetric.
void attempt_symmetric(Input& input, const fnce_problem& problem, const fnce_plan* plan, bool backward);

// The sentence of a refused call, by its form.
void check_refusal(fnce_status status);

// A workspace of the plan's size, or one that must be refused.
class Workspace {
 public:
  Workspace(Input& input, const fnce_plan* plan);
  void* pointer() const { return pointer_; }
  size_t bytes() const { return bytes_; }
  bool valid() const { return valid_; }
  void stir();  // other garbage

 private:
  std::unique_ptr<Block> block_;
  void* pointer_;
  size_t bytes_;
  bool valid_ = true;
  unsigned char garbage_ = 0;
};

}  // namespace fuzz
