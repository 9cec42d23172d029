// Fuzz target: one call of the C API with any problem and any arguments. What is wrong is refused by name before
// anything is written; what is right gives the same bits twice, whatever is in the workspace, and touches nothing else.
#include <flashnce/flashnce.hpp>

#include <cstring>
#include <memory>
#include <string>

#include "fuzz/call.h"

namespace fuzz {
namespace {

// fnce_problem as a caller of this, an older or a newer version passes it.
class ProblemStruct {
 public:
  ProblemStruct(Input& in, const fnce_problem& problem) {
    const size_t tail = in.rarely(30) ? static_cast<size_t>(in.small(0, 80)) : 0;
    block_ = std::make_unique<Block>(sizeof problem + tail, Block::kInput);
    std::memset(block_->bytes(), 0, block_->size());
    fnce_problem copy = problem;
    copy.struct_size = block_->size();
    wrong_ = in.rarely(10);
    if (wrong_) copy.struct_size = in.pick<uint64_t>({0, 8, 152, UINT64_MAX, uint64_t{1} << 20});
    std::memcpy(block_->bytes(), &copy, sizeof copy);
    if (tail > 0 && in.rarely(60)) {
      block_->bytes()[sizeof copy + in.byte() % tail] = 0x80;
      wrong_ = true;
    }
    block_->freeze();
  }
  const fnce_problem* pointer() const { return block_->as<fnce_problem>(); }
  bool wrong() const { return wrong_; }

 private:
  std::unique_ptr<Block> block_;
  bool wrong_;
};

struct PlanDeleter {
  void operator()(fnce_plan* plan) const { fnce_plan_destroy(plan); }
};
using PlanPointer = std::unique_ptr<fnce_plan, PlanDeleter>;

// Null if refused, which must be right.
PlanPointer make_plan(const ProblemStruct& problem, Verdict verdict) {
  fnce_plan* const nowhere = reinterpret_cast<fnce_plan*>(uintptr_t{16});
  fnce_plan* plan = nowhere;
  const fnce_status status = fnce_plan_create(problem.pointer(), &plan);
  if (status == FNCE_OK) {
    if (verdict == Verdict::kRefused) broken("a wrong problem is accepted");
    return PlanPointer(plan);
  }
  check_refusal(status);
  require(plan == nowhere, "a refused fnce_plan_create has written *plan");
  if (verdict == Verdict::kAccepted) broken("a valid problem is refused");
  return nullptr;
}

struct Scene {
  Input& in;
  const fnce_problem& problem;
  const ProblemStruct& caller;  // the problem as a struct of the caller
  const fnce_plan* plan;
};

Verdict also(Verdict verdict, bool valid) { return valid ? verdict : Verdict::kRefused; }

void try_loss(const Scene& s, bool stateless) {
  const Arguments arguments(s.in, s.problem, kUsesOfLoss);
  Workspace workspace(s.in, s.plan);
  attempt({[&] {
             workspace.stir();
             if (stateless)
               return fnce_run(s.caller.pointer(), arguments.pointer(), workspace.pointer(), workspace.bytes(),
                               nullptr);
             return fnce_loss(s.plan, arguments.pointer(), workspace.pointer(), workspace.bytes(), nullptr);
           },
           arguments.outputs(), also(arguments.verdict(), workspace.valid()),
           arguments.tame() ? arguments.loss() : nullptr});
}

void try_scores(const Scene& s) {
  const Arguments arguments(s.in, s.problem, kUsesOfScores);
  Workspace workspace(s.in, s.plan);
  const auto n = static_cast<size_t>(s.problem.n);
  Block mean(n * 4, Block::kOutput), greater(n * 8, Block::kOutput), log_mean_exp(n * 4, Block::kOutput);
  fnce_score_buffers out = {};
  out.neg_mean = mean.as<float>();
  out.n_greater = greater.as<int64_t>();
  out.neg_log_mean_exp = log_mean_exp.as<float>();
  Verdict verdict = also(arguments.verdict(), workspace.valid());
  if (s.in.rarely(20)) {
    out.entropy = log_mean_exp.as<float>();
    verdict = Verdict::kRefused;
  }
  attempt({[&] {
             workspace.stir();
             return fnce_scores(s.plan, arguments.pointer(), &out, workspace.pointer(), workspace.bytes(), nullptr);
           },
           {&mean, &greater, &log_mean_exp},
           verdict});
}

// Anchors as a caller allocates them, or with one of them missing.
struct Anchors {
  Anchors(Input& in, const fnce_problem& p, Block::Kind kind)
      : anchor(static_cast<size_t>(p.n * p.d) * 4, kind),
        pos(static_cast<size_t>(p.n) * 4, kind),
        unmixed_pos(static_cast<size_t>(p.n) * 4, kind),
        pointers{anchor.bytes(), pos.as<float>(), unmixed_pos.as<float>(), {}} {
    if (kind == Block::kInput) {
      fill_numbers(in, anchor, p.n * p.d, FNCE_FLOAT32, 1);
      fill_numbers(in, pos, p.n, FNCE_FLOAT32, 1);
      fill_numbers(in, unmixed_pos, p.n, FNCE_FLOAT32, 1);
    }
    for (Block* block : {&anchor, &pos, &unmixed_pos}) block->freeze();
    if (!in.rarely(30)) return;
    switch (in.byte() % 4) {
      case 0: pointers.anchor = nullptr, valid = false; return;
      case 1: pointers.pos = nullptr, valid = !(p.scores & FNCE_SCORES_MIXED) && !p.margin_mask; return;
      case 2: pointers.unmixed_pos = nullptr, valid = !(p.scores & FNCE_SCORES_UNMIXED); return;
      default: pointers.reserved[0] = &pointers, valid = false;
    }
  }
  // Those that fnce_prep writes.
  std::vector<Block*> outputs(const fnce_problem& p) {
    std::vector<Block*> out{&anchor};
    if (p.scores & FNCE_SCORES_MIXED || p.margin_mask) out.push_back(&pos);
    if (p.scores & FNCE_SCORES_UNMIXED) out.push_back(&unmixed_pos);
    return out;
  }
  Block anchor, pos, unmixed_pos;
  fnce_anchors pointers;
  bool valid = true;
};

void try_prep(const Scene& s) {
  const Arguments arguments(s.in, s.problem, kUsesOfPrep);
  Workspace workspace(s.in, s.plan);
  Anchors anchors(s.in, s.problem, Block::kOutput);
  attempt({[&] {
             workspace.stir();
             return fnce_prep(s.plan, arguments.pointer(), &anchors.pointers, workspace.pointer(), workspace.bytes(),
                              nullptr);
           },
           anchors.outputs(s.problem), also(arguments.verdict(), workspace.valid() && anchors.valid)});
}

void try_backward(const Scene& s) {
  if (s.in.rarely(128)) return attempt_backward(s.in, s.problem, s.plan, nullptr, true);
  const Anchors anchors(s.in, s.problem, Block::kInput);
  attempt_backward(s.in, s.problem, s.plan, &anchors.pointers, anchors.valid);
}

fnce_layout layout_of(const fnce_plan* plan) {
  fnce_layout layout;
  require(fnce_partial_layout(plan, &layout, sizeof layout) == FNCE_OK, "a plan does not tell its partials' layout");
  return layout;
}

size_t partial_bytes(const fnce_plan* plan) { return layout_of(plan).bytes; }

void try_partial(const Scene& s) {
  const Arguments arguments(s.in, s.problem, kUsesOfPartial);
  Workspace workspace(s.in, s.plan);
  const Anchors anchors(s.in, s.problem, Block::kInput);
  Block partial(partial_bytes(s.plan), Block::kOutput);
  const size_t missing = s.in.rarely(20) ? 1 : 0;
  attempt({[&] {
             workspace.stir();
             return fnce_partial(s.plan, arguments.pointer(), &anchors.pointers, partial.bytes(),
                                 partial.size() - missing, workspace.pointer(), workspace.bytes(), nullptr);
           },
           {&partial},
           also(arguments.verdict(), workspace.valid() && anchors.valid && !missing),
           nullptr,
           false});
}

// Numbers of any kind, but counts are counts: 0 .. 2^31-1, of which 2^32 can be added.
void fill_partial(Input& in, const Scene& s, Block& partial) {
  fill_numbers(in, partial, static_cast<int64_t>(partial.size() / 4), FNCE_FLOAT32, 1);
  const fnce_layout layout = layout_of(s.plan);
  for (int set = 0; set < 2; ++set)
    for (const uint64_t at : {layout.count[set], layout.n_greater[set], layout.n_greater_equal[set]})
      for (int64_t i = 0; at > 0 && i < s.problem.n; ++i) {
        int64_t& count = reinterpret_cast<int64_t*>(partial.bytes() + at)[i];
        count &= 0x7FFFFFFF;
      }
  partial.freeze();
}

void try_finish(const Scene& s) {
  const Arguments arguments(s.in, s.problem, kUsesOfFinish);
  Workspace workspace(s.in, s.plan);
  Block partial(partial_bytes(s.plan), Block::kInput);
  fill_partial(s.in, s, partial);
  const size_t skew = s.in.rarely(20) ? 4 : 0;
  attempt({[&] {
             workspace.stir();
             return fnce_finish(s.plan, arguments.pointer(), partial.bytes() + skew, partial.size(),
                                workspace.pointer(), workspace.bytes(), nullptr);
           },
           arguments.outputs(), also(arguments.verdict(), workspace.valid() && !skew)});
}

void try_merge(const Scene& s) {
  const size_t bytes = partial_bytes(s.plan);
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<const void*> partials;
  for (int64_t count = s.in.small(1, 4); count > 0; --count) {
    blocks.push_back(std::make_unique<Block>(bytes, Block::kInput));
    fill_partial(s.in, s, *blocks.back());
    partials.push_back(blocks.back()->bytes());
  }
  const bool in_place_wrong = partials.size() > 1 && s.in.rarely(20), missing = s.in.rarely(20);
  if (missing) partials[s.in.byte() % partials.size()] = nullptr;
  const int32_t count =
      s.in.rarely(10) ? static_cast<int32_t>(-s.in.small(0, 5)) : static_cast<int32_t>(partials.size());
  Block out(bytes, Block::kOutput);
  if (in_place_wrong && !missing) partials.back() = out.bytes();
  attempt({[&] { return fnce_merge(s.plan, partials.data(), count, out.bytes(), bytes, nullptr); },
           {&out},
           in_place_wrong || missing || count < 1 ? Verdict::kRefused : Verdict::kAccepted,
           nullptr,
           false});
}

void try_partial_rows(const Scene& s) {
  Block from(partial_bytes(s.plan), Block::kInput);
  fill_partial(s.in, s, from);
  fnce_problem part = s.problem;
  part.n = s.in.small(1, 24);
  if (s.in.rarely(30)) part.d += s.in.small(0, 2);
  if (s.in.rarely(30)) part.scores = static_cast<int32_t>(s.in.small(0, 3));
  fnce_plan* created = nullptr;
  if (fnce_plan_create(&part, &created) != FNCE_OK) return;
  const PlanPointer plan(created);
  Block out(partial_bytes(created), Block::kOutput);
  const int64_t first = s.in.rarely(40) ? read_odd_number(s.in) : s.in.small(0, 20);
  const bool valid =
      part.d == s.problem.d && part.scores == s.problem.scores && first >= 0 && first <= s.problem.n - part.n;
  attempt({[&] { return fnce_partial_rows(s.plan, from.bytes(), first, created, out.bytes(), out.size(), nullptr); },
           {&out},
           valid ? Verdict::kAccepted : Verdict::kRefused,
           nullptr,
           false});
}

void try_draws(const Scene& s, int side) {
  const fnce_problem& p = s.problem;
  const Arguments arguments(s.in, p, Uses{false, false, false, false, false, false});
  const int64_t expected = side == 0   ? flashnce::lambda_count(p.lambda_pos, p.n, p.d)
                           : side == 1 ? flashnce::lambda_count(p.lambda_neg, p.k, p.d)
                                       : p.k;
  const int64_t count = s.in.rarely(30) ? read_odd_number(s.in) : expected;
  const bool drawn = side == 0   ? p.lambda_pos != FNCE_LAMBDA_NONE && p.lambda_pos_source == FNCE_SAMPLED
                     : side == 1 ? p.lambda_neg != FNCE_LAMBDA_NONE && p.lambda_neg_source == FNCE_SAMPLED
                                 : p.lambda_neg != FNCE_LAMBDA_NONE && p.permutation_source == FNCE_SAMPLED;
  Block out(static_cast<size_t>(expected) * 4, Block::kOutput);
  attempt({[&] {
             if (side == 0)
               return fnce_sample_lambda_pos(s.caller.pointer(), arguments.pointer(), out.as<float>(), count);
             if (side == 1)
               return fnce_sample_lambda_neg(s.caller.pointer(), arguments.pointer(), out.as<float>(), count);
             return fnce_permutation(s.caller.pointer(), arguments.pointer(), out.as<int32_t>(), count);
           },
           {&out},
           also(arguments.verdict(), drawn && count == expected)});
}

// Makes the calls that need no arrays, which are right for problems of any size.
void ask_plan(const Scene& s) {
  size_t bytes = 1, again = 2;
  require(fnce_plan_workspace(s.plan, &bytes) == FNCE_OK, "a plan does not tell its workspace");
  require(fnce_run_workspace(s.caller.pointer(), &again) == FNCE_OK, "fnce_run refuses what a plan accepts");
  require(bytes == again, "fnce_run_workspace differs from fnce_plan_workspace");
  require(bytes < uint64_t{1} << 60, "the size of the workspace has overflowed");
  require(partial_bytes(s.plan) > static_cast<size_t>(s.problem.n * s.problem.d) * 4, "a partial is smaller than O");
  fnce_plan_info info;
  require(fnce_plan_get_info(s.plan, &info, sizeof info) == FNCE_OK, "a plan tells nothing of itself");
  require(info.n == s.problem.n && info.k == s.problem.k && info.d == s.problem.d, "a plan has other sizes");
  require(info.workspace_bytes == bytes, "a plan tells two workspaces");
  const int64_t cuts = info.row_blocks * info.splits;
  require(cuts == 0 ? info.tasks == 0 : info.tasks >= cuts && info.tasks % cuts == 0,
          "a plan's tasks are no multiple of its blocks times its splits");
  require(info.row_blocks * info.block_rows >= info.n, "a plan's blocks leave queries out");
  require(info.column_tiles * info.tile_columns >= info.k, "a plan's tiles leave negatives out");
  require(std::strstr(fnce_plan_describe(s.plan), std::to_string(bytes).c_str()), "a description lacks the workspace");
  // Nothing is read or written of arrays that are not there: the workspace is refused first.
  fnce_args args;
  require(fnce_args_init(&args, sizeof args) == FNCE_OK, "fnce_args_init refuses its own size");
  const fnce_status status = fnce_loss(s.plan, &args, nullptr, 0, nullptr);
  if (status == FNCE_OK) broken("a call without arrays is accepted");
  check_refusal(status);
}

// A plan of pairs has calls of its own, and refuses the others.
void try_pairs(const Scene& s) {
  if (runs_quickly(s.problem)) return attempt_symmetric(s.in, s.problem, s.plan, s.in.rarely(128));
  fnce_layout layout;
  check_refusal(fnce_partial_layout(s.plan, &layout, sizeof layout));
  fnce_args args;
  require(fnce_args_init(&args, sizeof args) == FNCE_OK, "fnce_args_init refuses its own size");
  check_refusal(fnce_loss(s.plan, &args, nullptr, 0, nullptr));
}

void run(Input& in) {
  const uint8_t kind = in.byte() % 12;
  const fnce_problem problem = read_problem(in);
  const ProblemStruct caller(in, problem);
  const PlanPointer plan = make_plan(caller, caller.wrong() ? Verdict::kRefused : judge(problem));
  if (!plan) return;
  const Scene scene{in, problem, caller, plan.get()};
  if (problem.form == FNCE_FORM_SYMMETRIC) return try_pairs(scene);
  if (kind == 11 || !runs_quickly(problem)) return ask_plan(scene);
  switch (kind) {
    case 0:
    case 1: return try_loss(scene, false);
    case 2: return try_loss(scene, true);
    case 3: return try_scores(scene);
    case 4: return try_prep(scene);
    case 5: return try_partial(scene);
    case 6: return try_finish(scene);
    case 7: return try_merge(scene);
    case 8: return try_partial_rows(scene);
    case 10: return try_backward(scene);
    default: return try_draws(scene, (kind + in.byte()) % 3);
  }
}

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  fuzz::run(input);
  return 0;
}
