// One fnce_pairs with all its memory, and one thing that may be wrong with it.
#include <memory>
#include <vector>

#include "fuzz/call.h"

namespace fuzz {
namespace {

class PairsArguments {
 public:
  PairsArguments(Input& in, const fnce_problem& p, bool backward) {
    require(fnce_pairs_init(&pairs_, sizeof pairs_) == FNCE_OK, "fnce_pairs_init refuses its own size");
    read_inputs(in, p);
    const auto n = static_cast<size_t>(p.n), row = static_cast<size_t>(p.d) * element_size(p.gradient_type);
    pairs_.a_log_sum_exp = sums(in, n, backward);
    pairs_.b_log_sum_exp = sums(in, n, backward);
    if (!backward) pairs_.loss = output(p.reduction == FNCE_REDUCTION_NONE ? 4 * n : 4)->as<float>();
    if (!backward) loss_ = blocks_.back().get();
    if (backward && !in.rarely(30)) pairs_.da = output(n * row)->bytes();
    if (backward && !in.rarely(30)) pairs_.db = output(n * row)->bytes();
    if (backward && !in.rarely(30)) pairs_.dtemperature = output(4)->as<float>();
    if (in.rarely(40)) spoil(in, backward);
    for (const auto& block : blocks_) block->freeze();
  }

  const fnce_pairs* pointer() const { return &pairs_; }
  Verdict verdict() const { return verdict_; }
  const std::vector<Block*>& outputs() const { return outputs_; }
  const Block* loss() const { return tame_ ? loss_ : nullptr; }

 private:
  Block* add(size_t bytes, Block::Kind kind) {
    blocks_.push_back(std::make_unique<Block>(bytes, kind));
    return blocks_.back().get();
  }
  Block* output(size_t bytes) {
    outputs_.push_back(add(bytes, Block::kOutput));
    return outputs_.back();
  }
  const void* numbers(Input& in, int64_t count, int32_t type, float scale) {
    Block* block = add(static_cast<size_t>(count) * element_size(type), Block::kInput);
    tame_ = fill_numbers(in, *block, count, type, scale) && tame_;
    return block->bytes();
  }
  const float* floats(Input& in, int64_t count, float scale) {
    return static_cast<const float*>(numbers(in, count, FNCE_FLOAT32, scale));
  }
  const int64_t* ids(Input& in, int64_t count) {
    Block* block = add(static_cast<size_t>(count) * 8, Block::kInput);
    Noise noise(in.byte());
    const uint32_t different = 1 + in.byte() % 8;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = noise.bits();
      block->as<int64_t>()[i] = bits % 16 == 0 ? FNCE_NO_COLUMN : (bits >> 8) % different;
    }
    return block->as<int64_t>();
  }
  // What the forward pass writes, and the backward pass reads.
  float* sums(Input& in, size_t n, bool backward) {
    if (backward) return const_cast<float*>(floats(in, static_cast<int64_t>(n), 4));
    return in.rarely(60) ? nullptr : output(4 * n)->as<float>();
  }
  void read_inputs(Input& in, const fnce_problem& p) {
    pairs_.x_a = numbers(in, p.n * p.d, p.feature_type, 1);
    pairs_.x_b = numbers(in, p.n * p.d, p.feature_type, 1);
    if (in.rarely(60)) pairs_.weight = floats(in, p.n, 1);
    if (p.id_mask) pairs_.a_ids = ids(in, p.n), pairs_.b_ids = ids(in, p.n);
    if (p.column_bias) pairs_.a_bias = floats(in, p.n, 4), pairs_.b_bias = floats(in, p.n, 4);
    pairs_.temperature = in.pick({0.2f, 1.0f, 0.07f, 5.0f});
    if (in.rarely(30)) pairs_.temperature_pointer = static_cast<const float*>(numbers(in, 1, FNCE_FLOAT32, 1));
    if (!pairs_.temperature_pointer) return;
    const float read = *pairs_.temperature_pointer;
    tame_ = false;
    refuse_if(!(read > 0) || read - read != 0);
  }
  void spoil(Input& in, bool backward) {
    switch (in.byte() % 8) {
      case 0: pairs_.x_a = nullptr; break;
      case 1: pairs_.x_b = static_cast<const char*>(pairs_.x_b) + 1; break;
      case 2: pairs_.a_ids = pairs_.a_ids ? nullptr : reinterpret_cast<const int64_t*>(uintptr_t{8}); break;
      case 3: pairs_.b_bias = pairs_.b_bias ? nullptr : reinterpret_cast<const float*>(uintptr_t{8}); break;
      case 4: pairs_.epsilon = 0; break;
      case 5: pairs_.reserved = 1; break;
      case 6: pairs_.struct_size = 8; break;
      default: pairs_.a_log_sum_exp = backward ? nullptr : reinterpret_cast<float*>(uintptr_t{9});
    }
    verdict_ = Verdict::kRefused;
  }
  void refuse_if(bool wrong) { verdict_ = wrong ? Verdict::kRefused : verdict_; }

  fnce_pairs pairs_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Block*> outputs_;
  const Block* loss_ = nullptr;
  Verdict verdict_ = Verdict::kAccepted;
  bool tame_ = true;
};

}  // namespace

void attempt_symmetric(Input& in, const fnce_problem& p, const fnce_plan* plan, bool backward) {
  const PairsArguments arguments(in, p, backward);
  Workspace workspace(in, plan);
  const int64_t count = in.rarely(128) ? p.n : 1;
  Block upstream(static_cast<size_t>(count) * 4, Block::kInput);
  fill_numbers(in, upstream, count, FNCE_FLOAT32, 1);
  upstream.freeze();
  const int64_t given = in.rarely(20) ? read_odd_number(in) : count;
  const bool counts = given == 1 || given == p.n;
  if (counts && given > count) return;  // there is no memory for so many
  const bool valid = workspace.valid() && (counts || !backward);
  attempt({[&] {
             workspace.stir();
             if (!backward)
               return fnce_symmetric(plan, arguments.pointer(), workspace.pointer(), workspace.bytes(), nullptr);
             return fnce_symmetric_backward(plan, arguments.pointer(), upstream.as<float>(), given, workspace.pointer(),
                                            workspace.bytes(), nullptr);
           },
           arguments.outputs(), valid ? arguments.verdict() : Verdict::kRefused, arguments.loss()});
}

}  // namespace fuzz
