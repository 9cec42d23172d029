// Arguments of a call, and the promises every call keeps.
#include "fuzz/call.h"

#include <flashnce/flashnce.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace fuzz {
namespace {

float odd_float(Input& in) {
  switch (in.byte() % 4) {
    case 0: return in.pick({0.0f, -0.0f, -1.0f, 1e-45f, 1e-38f, 1e38f});
    case 1:
      return in.pick({std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                      std::numeric_limits<float>::quiet_NaN()});
    case 2: return in.pick({1e-3f, 1e3f, 1e-6f, 1e6f, 1e-18f, 9e-19f});
    default: return in.raw<float>();
  }
}

}  // namespace

Arguments::Arguments(Input& in, const fnce_problem& problem, const Uses& uses) : problem_(problem), uses_(uses) {
  if (fnce_args_init(&args_, sizeof args_) != FNCE_OK) broken("fnce_args_init refuses its own size");
  skew_ = in.rarely(60) ? static_cast<size_t>(4 * in.small(0, 15)) : 0;
  read_inputs(in);
  read_lambdas(in);
  read_numbers(in);
  read_outputs(in);
  const bool spoils = in.rarely(70);
  if (spoils) spoil(in);
  const size_t tail = in.rarely(30) ? static_cast<size_t>(in.small(0, 80)) : 0;
  struct_ = add(sizeof args_ + tail, Block::kInput, 1);
  std::memset(struct_->bytes(), 0, struct_->size());
  if (args_.struct_size == sizeof args_) args_.struct_size = struct_->size();
  std::memcpy(struct_->bytes(), &args_, sizeof args_);
  if (tail > 0 && in.rarely(60)) {
    struct_->bytes()[sizeof args_ + in.byte() % tail] = 1;
    verdict_ = Verdict::kRefused;
  }
  for (const auto& block : blocks_) block->freeze();
  if (verdict_ != Verdict::kAccepted) tame_ = false;
}

Block* Arguments::add(size_t bytes, Block::Kind kind, size_t element) {
  // Skewed arrays are still aligned to their elements.
  blocks_.push_back(std::make_unique<Block>(bytes, kind, skew_ / element * element));
  return blocks_.back().get();
}

Block* Arguments::output(size_t count, size_t element) {
  outputs_.push_back(add(count * element, Block::kOutput, element));
  return outputs_.back();
}

Block* Arguments::features(Input& in, int64_t count, int32_t type, float scale) {
  Block* block = add(static_cast<size_t>(count) * element_size(type), Block::kInput, element_size(type));
  tame_ = fill_numbers(in, *block, count, type, scale) && tame_;
  return block;
}

void Arguments::read_inputs(Input& in) {
  const fnce_problem& p = problem_;
  if (uses_.features) {
    args_.x_q = features(in, p.n * p.d, p.feature_type, 1)->bytes();
    args_.x_k = features(in, p.n * p.d, p.feature_type, 1)->bytes();
  }
  if (uses_.negatives) read_columns(in);
  if (uses_.negatives && p.k > 0) args_.queue = features(in, p.k * p.d, p.queue_type, 1)->bytes();
  if (in.rarely(60)) args_.weight = features(in, p.n, FNCE_FLOAT32, 1)->as<float>();
}

// Few different ones, and FNCE_NO_COLUMN.
int64_t* Arguments::ids(Input& in, int64_t count) {
  Block* block = add(static_cast<size_t>(count) * 8, Block::kInput, 8);
  Noise noise(in.byte());
  const uint32_t different = 1 + in.byte() % 8;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = noise.bits();
    block->as<int64_t>()[i] = bits % 16 == 0 ? FNCE_NO_COLUMN : (bits >> 8) % different;
  }
  return block->as<int64_t>();
}

void Arguments::read_columns(Input& in) {
  const fnce_problem& p = problem_;
  if (p.batch_columns > 0) args_.x_c = features(in, p.batch_columns * p.d, p.feature_type, 1)->bytes();
  if (p.id_mask) {
    args_.query_ids = ids(in, p.n);
    args_.column_ids = ids(in, p.k);
    args_.batch_ids = ids(in, p.batch_columns);
  }
  if (p.column_bias) {
    args_.column_bias = features(in, p.k, FNCE_FLOAT32, 4)->as<float>();
    args_.batch_bias = features(in, p.batch_columns, FNCE_FLOAT32, 4)->as<float>();
  }
  args_.margin = in.pick({0.0f, 0.5f, -0.5f, 2.0f, std::numeric_limits<float>::infinity()});
}

void Arguments::read_lambdas(Input& in) {
  const fnce_problem& p = problem_;
  if (p.lambda_pos_source == FNCE_GIVEN)
    args_.lambda_pos = features(in, flashnce::lambda_count(p.lambda_pos, p.n, p.d), FNCE_FLOAT32, 2)->as<float>();
  if (p.lambda_neg_source == FNCE_GIVEN)
    args_.lambda_neg = features(in, flashnce::lambda_count(p.lambda_neg, p.k, p.d), FNCE_FLOAT32, 2)->as<float>();
  if (p.permutation_source != FNCE_GIVEN) return;
  Block* block = add(static_cast<size_t>(p.k) * 4, Block::kInput, 4);
  int32_t* permutation = block->as<int32_t>();
  const int64_t step = in.byte();
  for (int64_t j = 0; j < p.k; ++j) permutation[j] = static_cast<int32_t>((j + step) % p.k);
  args_.permutation = permutation;
  // What is no bijection is refused where that is checked; where it is not, it must at least stay in range.
  if (in.rarely(60)) args_.checks = FNCE_CHECK_PERMUTATION;
  if (p.k > 1 && in.rarely(60)) {
    permutation[in.byte() % p.k] = args_.checks ? in.raw<int32_t>() : permutation[0];
    verdict_ = Verdict::kEither;
  }
}

void Arguments::read_numbers(Input& in) {
  args_.temperature = in.pick({0.07f, 0.2f, 1.0f, 0.01f, 100.0f, 1e-3f, 1e3f});
  args_.alpha_pos = in.pick({2.0f, 1.0f, 0.3f, 20.0f, 1e-3f, 1e4f});
  args_.alpha_neg = in.pick({1.6f, 1.0f, 0.3f, 20.0f, 1e-3f, 1e4f});
  args_.shift_pos = in.pick({1.0f, 0.0f, 0.5f, -1.0f});
  args_.shift_neg = in.pick({0.0f, 1.0f, -0.5f});
  if (in.rarely(40)) args_.epsilon = in.pick({1e-12f, 1e-18f, 1.0f, 1e10f});
  args_.seed = in.rarely(60) ? in.raw<uint64_t>() : in.byte();
  args_.offset = 4 * (in.rarely(40) ? in.raw<uint64_t>() : in.byte());
  args_.offset_increment = 4 * uint64_t{in.byte()};
  if (in.rarely(60)) put_behind_pointers(in);
}

void Arguments::put_behind_pointers(Input& in) {
  const auto place = [&](auto& value, auto*& pointer) {
    if (in.rarely(80)) return;
    Block* block = add(sizeof value, Block::kInput, sizeof value);
    std::memcpy(block->bytes(), &value, sizeof value);
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(block->bytes());
    value = {};  // must not be looked at
  };
  place(args_.temperature, args_.temperature_pointer);
  place(args_.alpha_pos, args_.alpha_pos_pointer);
  place(args_.shift_pos, args_.shift_pos_pointer);
  place(args_.alpha_neg, args_.alpha_neg_pointer);
  place(args_.shift_neg, args_.shift_neg_pointer);
  place(args_.seed, args_.seed_pointer);
  place(args_.offset, args_.offset_pointer);
}

void Arguments::read_outputs(Input& in) {
  if (!uses_.outputs) return;
  const auto n = static_cast<size_t>(problem_.n), d = static_cast<size_t>(problem_.d);
  const uint8_t left_out = in.byte();
  if (!(left_out & 1)) {
    loss_ = output(problem_.reduction == FNCE_REDUCTION_NONE ? n : 1, 4);
    args_.loss = loss_->as<float>();
  }
  const size_t element = element_size(problem_.gradient_type);
  if (!(left_out & 2)) args_.dq = output(n * d, element)->bytes();
  if (!(left_out & 4)) args_.dk = output(n * d, element)->bytes();
  if (left_out & 8) args_.dtemperature_rows = output(n, 4)->as<float>();
  if (left_out & 16) args_.dtemperature = output(1, 4)->as<float>();
  if (left_out & 32) args_.log_sum_exp = output(n, 4)->as<float>();
  if (problem_.scores & FNCE_SCORES_MIXED) read_statistics(in, args_.mixed, true);
  if (problem_.scores & FNCE_SCORES_UNMIXED) read_statistics(in, args_.unmixed, false);
}

void Arguments::read_statistics(Input& in, fnce_score_buffers& b, bool of_loss) {
  const auto left_out = in.raw<uint16_t>();
  const auto n = static_cast<size_t>(problem_.n);
  int bit = 0;
  for (float** field :
       {&b.pos, &b.neg_mean, &b.neg_variance, &b.neg_min, &b.neg_max, &b.neg_log_mean_exp, &b.entropy, &b.dq_norm}) {
    if (!of_loss && (field == &b.entropy || field == &b.dq_norm)) continue;
    if (problem_.column_bias && field == &b.entropy) continue;
    if (!(left_out >> bit++ & 1)) *field = output(n, 4)->as<float>();
  }
  for (int64_t** field : {&b.neg_count, &b.n_greater, &b.n_greater_equal})
    if (!(left_out >> bit++ & 1)) *field = output(n, 8)->as<int64_t>();
}

void Arguments::spoil(Input& in) {
  tame_ = false;
  switch (in.byte() % 4) {
    case 0: return spoil_pointer(in);
    case 1: return spoil_number(in);
    case 3: return spoil_columns(in);
    default: return spoil_struct(in);
  }
}

void Arguments::spoil_pointer(Input& in) {
  const auto move = [](auto& pointer) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(reinterpret_cast<uintptr_t>(pointer) + 1);
  };
  const bool used_queue = uses_.negatives && uses_.queue && problem_.k > 0;
  switch (in.byte() % 12) {
    case 0: args_.x_q = nullptr; return refuse_if(uses_.features);
    case 1: args_.x_k = nullptr; return refuse_if(uses_.features);
    case 2: args_.queue = nullptr; return refuse_if(used_queue);
    case 3: move(args_.x_q); return refuse_if(uses_.features);
    case 4: move(args_.x_k); return refuse_if(uses_.features);
    case 5: move(args_.queue); return refuse_if(used_queue);
    case 6: move(args_.weight); return refuse_if(uses_.features || !uses_.queue);
    case 7: move(args_.loss); return refuse_if(uses_.outputs);
    case 8: move(args_.dq); return refuse_if(uses_.outputs);
    case 9: move(args_.mixed.neg_count); return refuse_if(uses_.outputs);
    case 10:
      // There exactly if the problem declares it given.
      if (args_.lambda_pos)
        args_.lambda_pos = nullptr;
      else
        args_.lambda_pos = reinterpret_cast<const float*>(&args_);
      return refuse_if(uses_.lambda_pos);
    default: move(args_.offset_pointer); return refuse_if(true);
  }
}

void Arguments::spoil_number(Input& in) {
  const float value = odd_float(in);
  // The problem and the pointers decide whether the library looks at the number.
  verdict_ = Verdict::kEither;
  switch (in.byte() % 8) {
    case 0:
      args_.temperature = value;
      args_.temperature_pointer = nullptr;
      if (!(value > 0) || !std::isfinite(value)) verdict_ = uses_.temperature ? Verdict::kRefused : verdict_;
      return;
    case 1: args_.alpha_pos = value; return;
    case 2: args_.shift_pos = value; return;
    case 3: args_.alpha_neg = value; return;
    case 4: args_.shift_neg = value; return;
    case 5: args_.epsilon = value; return refuse_if(!(value >= 1e-18f) || !std::isfinite(value));
    case 6:
      args_.offset = in.raw<uint64_t>();
      args_.offset_pointer = nullptr;
      return refuse_if(args_.offset % 4 != 0);
    default: args_.offset_increment = in.raw<uint64_t>(); return refuse_if(args_.offset_increment % 4 != 0);
  }
}

void Arguments::spoil_struct(Input& in) {
  verdict_ = Verdict::kRefused;
  static int64_t anything;
  switch (in.byte() % 5) {
    case 0:
      args_.struct_size = in.pick<uint64_t>({0, 1, 8, sizeof args_ - 8 * 64, UINT64_MAX, uint64_t{1} << 32});
      return;
    case 1: args_.checks = 4 << in.byte() % 28; return;
    case 2: args_.reserved = static_cast<int32_t>(1 + in.byte()); return;
    case 3: args_.reserved2 = -1 - in.byte(); return;
    default:
      (in.byte() % 2 ? args_.mixed : args_.unmixed).reserved[in.byte() % 5] = &anything;
      verdict_ = uses_.outputs ? Verdict::kRefused : Verdict::kEither;
  }
}

// What a problem declares must be there, what it does not must not; where nothing is read, both are open.
void Arguments::spoil_columns(Input& in) {
  static const int64_t anything = 0;
  const fnce_problem& p = problem_;
  const auto spoil = [&](auto& pointer, bool declared, int64_t count) {
    using Pointer = std::remove_reference_t<decltype(pointer)>;
    const bool there = declared && count > 0;
    const bool moves = in.rarely(100);
    pointer = there && !moves ? nullptr : reinterpret_cast<Pointer>(reinterpret_cast<uintptr_t>(&anything) + moves);
    const bool open = !uses_.negatives || (declared && count == 0);
    verdict_ = open ? Verdict::kEither : Verdict::kRefused;
  };
  const int64_t k = uses_.queue ? p.k : 0;
  switch (in.byte() % 9) {
    case 0: return spoil(args_.x_c, p.batch_columns > 0, p.batch_columns);
    case 1: return spoil(args_.query_ids, p.id_mask, p.n);
    case 2: return spoil(args_.column_ids, p.id_mask, k);
    case 3: return spoil(args_.batch_ids, p.id_mask, p.batch_columns);
    case 4: return spoil(args_.column_bias, p.column_bias, k);
    case 5: return spoil(args_.batch_bias, p.column_bias, p.batch_columns);
    case 6: args_.margin = std::numeric_limits<float>::quiet_NaN(); return refuse_if(uses_.negatives && p.margin_mask);
    case 7:
      args_.log_sum_exp = reinterpret_cast<float*>(reinterpret_cast<uintptr_t>(&anything) + 1);
      return refuse_if(uses_.outputs);
    default:
      if (p.scores & FNCE_SCORES_MIXED && !p.column_bias) return;
      args_.mixed.entropy = const_cast<float*>(reinterpret_cast<const float*>(&anything));
      return refuse_if(uses_.outputs);
  }
}

bool fill_numbers(Input& in, Block& block, int64_t count, int32_t type, float scale) {
  const uint8_t style = in.byte();
  Noise noise(in.byte());
  if (style >= 240) {  // the fuzzer's own bytes, over and over
    uint8_t own[16];
    for (uint8_t& b : own) b = in.byte();
    for (size_t i = 0; i < block.size(); ++i) block.bytes()[i] = own[i % sizeof own];
    return false;
  }
  const uint8_t kind = style % 16;
  const bool any_exponent = kind == 11 || kind >= 13;  // of a float16
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = noise.bits();
    // The values lie in -1 .. 1, and every eighth of them is small.
    float value = (static_cast<float>(bits >> 8) * 0x1p-23f - 1) * (bits % 8 == 0 ? 0.01f : 1.0f) * scale;
    if (kind == 9) value = 0;
    if (kind == 10) value = 0.5f * scale;
    if (kind == 11) value = (bits & 1 ? 1e-40f : -3e-42f);
    if (kind == 12 && i % 7 == 0) value = 0;
    if (kind == 13) value *= 1e-20f;
    if (kind == 14) value *= 1e30f;
    uint32_t word;
    std::memcpy(&word, &value, 4);
    if (kind == 15 && bits % 16 == 0) word = bits & 16 ? 0x7F800000u : 0x7FC00001u ^ (bits & 0x80000000u);
    if (type == FNCE_FLOAT32) {
      std::memcpy(block.bytes() + 4 * i, &word, 4);
    } else {
      // bfloat16 is a float32 cut short. Float16 is made of its bits: 2^-7 .. 1, or any exponent.
      const uint32_t exponent = any_exponent ? bits >> 16 & 31 : 8 + (bits >> 16) % 7;
      const uint32_t half = value == 0 ? 0 : kind == 10 ? 0x3800 : (bits & 0x83FF) | exponent << 10;
      const auto cut = static_cast<uint16_t>(type == FNCE_BFLOAT16 ? word >> 16 : half);
      std::memcpy(block.bytes() + 2 * i, &cut, 2);
    }
  }
  return kind < 14 && !(any_exponent && type == FNCE_FLOAT16);
}

void check_refusal(fnce_status status) {
  const std::string sentence = fnce_last_error();
  const bool known = status == FNCE_INVALID_ARGUMENT || status == FNCE_UNSUPPORTED || status == FNCE_NO_DEVICE ||
                     status == FNCE_WORKSPACE_TOO_SMALL;
  if (!known) broken(std::string("status ") + fnce_status_string(status));
  if (sentence.find(" is ") == std::string::npos && sentence.find(" has a non-zero byte") == std::string::npos)
    broken("the sentence names no field: " + sentence);
}

void attempt(const Attempt& a) {
  std::vector<std::vector<unsigned char>> first;
  for (Block* out : a.outputs) out->reset();
  const fnce_status status = a.call();
  for (Block* out : a.outputs) out->check_guards();
  if (status != FNCE_OK) {
    check_refusal(status);
    if (a.verdict == Verdict::kAccepted) broken("a valid call is refused");
    for (Block* out : a.outputs) require(out->as_frozen(), "a refused call has written");
    return;
  }
  if (a.verdict == Verdict::kRefused) broken("a wrong call is accepted");
  for (Block* out : a.outputs) first.push_back(out->content());
  for (Block* out : a.outputs) a.writes_everything ? out->fill(0x54) : out->reset();
  require(a.call() == FNCE_OK, "the same call is refused the second time");
  for (size_t i = 0; i < first.size(); ++i)
    require(first[i] == a.outputs[i]->content(),
            "the same call twice has different bits, or leaves an output unwritten");
  if (a.loss == nullptr) return;
  for (size_t i = 0; i < a.loss->size() / 4; ++i)
    require(std::isfinite(a.loss->as<float>()[i]), "the loss of plausible numbers is not finite");
}

void attempt_backward(Input& in, const fnce_problem& p, const fnce_plan* plan, const fnce_anchors* anchors, bool fit) {
  const Arguments arguments(in, p, anchors ? kUsesOfColumnsOfAnchors : kUsesOfColumns);
  Workspace workspace(in, plan);
  const int64_t count = in.rarely(128) ? p.n : 1;
  Block sums(static_cast<size_t>(p.n) * 4, Block::kInput), upstream(static_cast<size_t>(count) * 4, Block::kInput);
  fill_numbers(in, sums, p.n, FNCE_FLOAT32, 4);
  fill_numbers(in, upstream, count, FNCE_FLOAT32, 1);
  sums.freeze();
  upstream.freeze();
  Block dx_c(static_cast<size_t>(p.batch_columns * p.d) * element_size(p.gradient_type), Block::kOutput);
  const int64_t given = in.rarely(20) ? read_odd_number(in) : count;
  const bool counts = given == 1 || given == p.n;
  if (counts && given > count) return;  // there is no memory for so many
  const bool valid = p.batch_columns > 0 && workspace.valid() && counts && fit;
  attempt({[&] {
             workspace.stir();
             return fnce_columns_backward(plan, arguments.pointer(), anchors, sums.as<float>(), upstream.as<float>(),
                                          given, dx_c.bytes(), workspace.pointer(), workspace.bytes(), nullptr);
           },
           {&dx_c},
           valid ? arguments.verdict() : Verdict::kRefused});
}

Workspace::Workspace(Input& in, const fnce_plan* plan) {
  require(fnce_plan_workspace(plan, &bytes_) == FNCE_OK, "a plan does not tell its workspace");
  block_ = std::make_unique<Block>(bytes_, Block::kOutput);
  pointer_ = block_->bytes();
  if (!in.rarely(20)) return;
  valid_ = bytes_ == 0;
  switch (in.byte() % 4) {
    case 0: pointer_ = nullptr; return;
    case 1: pointer_ = block_->bytes() + in.pick({1, 4, 64, 128}); return;
    case 2: bytes_ -= bytes_ > 0; return;
    default: bytes_ = 0;
  }
}

void Workspace::stir() {
  garbage_ = static_cast<unsigned char>(garbage_ * 5 + 0x7F);
  block_->fill(garbage_);
}

}  // namespace fuzz
