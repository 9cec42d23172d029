// Fuzz target: sequences of calls on few plans, anchors, partials and queues that live across calls: created, used in
// any order, replaced, destroyed, given to each other. Nothing crashes, what fits together is accepted, what does not
// is refused by name, and a call repeated at the end of everything has the bits it had at the start.
#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "fuzz/call.h"

namespace fuzz {
namespace {

// Anchors and partials remember what they are of.
struct Shape {
  int64_t n = 0, d = 0;
  int32_t scores = 0;
  bool operator==(const Shape&) const = default;
};

struct Held {
  Shape shape;
  std::unique_ptr<Block> block, pos, unmixed_pos;
};

struct Slot {
  fnce_problem problem = {};
  fnce_plan* plan = nullptr;
};

class Session {
 public:
  explicit Session(Input& input) : in_(input) {}
  ~Session() {
    for (Slot& slot : plans_) fnce_plan_destroy(slot.plan);
    fnce_set_threads(1);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void step();

 private:
  Shape shape_of(const Slot& s) const { return {s.problem.n, s.problem.d, s.problem.scores}; }
  Slot& any_plan() { return plans_[in_.byte() % plans_.size()]; }
  size_t partial_bytes(const Slot& s) const {
    fnce_layout layout;
    require(fnce_partial_layout(s.plan, &layout, sizeof layout) == FNCE_OK, "a plan does not tell its layout");
    return layout.bytes;
  }
  // A refused call leaves no partial behind: counts that are none must not be added up.
  static void forget_unwritten(Held& partial) {
    if (partial.block->as_frozen()) partial = {};
  }
  void create();
  void create_sibling();
  void loss(bool stateless);
  void prep();
  void partial();
  void backward();
  void merge();
  void rows();
  void finish();
  void scores();
  void push();
  void scale();
  void odd_calls();

  Input& in_;
  std::array<Slot, 3> plans_;
  std::array<Held, 2> anchors_;
  std::array<Held, 4> partials_;
};

void Session::create() {
  Slot& slot = any_plan();
  const fnce_problem problem = read_problem(in_);
  fnce_plan* plan = nullptr;
  const fnce_status status = fnce_plan_create(&problem, &plan);
  if (status != FNCE_OK) return check_refusal(status);
  // Pairs have calls of their own.
  if (!runs_quickly(problem) || problem.form == FNCE_FORM_SYMMETRIC) return fnce_plan_destroy(plan);
  fnce_plan_destroy(slot.plan);
  slot = {problem, plan};
}

// A plan that goes together with another one: other negatives or fewer rows, the same features and statistics.
void Session::create_sibling() {
  const fnce_problem base = any_plan().problem;
  Slot& slot = any_plan();
  fnce_problem problem = base;
  if (in_.rarely(128)) problem.n = in_.small(1, 20);
  if (in_.rarely(128)) problem.k = in_.small(0, 40);
  problem.k_global = problem.column_offset = problem.perm_block = 0;
  fnce_plan* plan = nullptr;
  const fnce_status status = fnce_plan_create(&problem, &plan);
  if (status != FNCE_OK) return check_refusal(status);
  if (!runs_quickly(problem)) return fnce_plan_destroy(plan);
  fnce_plan_destroy(slot.plan);
  slot = {problem, plan};
}

void Session::loss(bool stateless) {
  const Slot& s = any_plan();
  if (!s.plan) return;
  const Arguments arguments(in_, s.problem, kUsesOfLoss);
  Workspace workspace(in_, s.plan);
  // fnce_run without a number of threads follows fnce_set_threads, and with it the size of the workspace.
  const Verdict verdict = stateless && s.problem.threads == 0 ? Verdict::kEither
                          : workspace.valid()                 ? arguments.verdict()
                                                              : Verdict::kRefused;
  attempt({[&] {
             workspace.stir();
             if (stateless)
               return fnce_run(&s.problem, arguments.pointer(), workspace.pointer(), workspace.bytes(), nullptr);
             return fnce_loss(s.plan, arguments.pointer(), workspace.pointer(), workspace.bytes(), nullptr);
           },
           arguments.outputs(), verdict, arguments.tame() ? arguments.loss() : nullptr});
}

void Session::prep() {
  const Slot& s = any_plan();
  Held& to = anchors_[in_.byte() % anchors_.size()];
  if (!s.plan) return;
  const Arguments arguments(in_, s.problem, kUsesOfPrep);
  Workspace workspace(in_, s.plan);
  const auto n = static_cast<size_t>(s.problem.n), d = static_cast<size_t>(s.problem.d);
  to = {shape_of(s), std::make_unique<Block>(n * d * 4, Block::kOutput), std::make_unique<Block>(n * 4, Block::kOutput),
        std::make_unique<Block>(n * 4, Block::kOutput)};
  const fnce_anchors anchors = {to.block->bytes(), to.pos->as<float>(), to.unmixed_pos->as<float>(), {}};
  attempt({[&] {
             workspace.stir();
             return fnce_prep(s.plan, arguments.pointer(), &anchors, workspace.pointer(), workspace.bytes(), nullptr);
           },
           {to.block.get()},
           workspace.valid() ? arguments.verdict() : Verdict::kRefused});
}

void Session::partial() {
  const Slot& s = any_plan();
  Held& from = anchors_[in_.byte() % anchors_.size()];
  Held& to = partials_[in_.byte() % partials_.size()];
  if (!s.plan || !from.block || !(from.shape == shape_of(s))) return;
  const Arguments arguments(in_, s.problem, kUsesOfPartial);
  Workspace workspace(in_, s.plan);
  const fnce_anchors anchors = {from.block->bytes(), from.pos->as<float>(), from.unmixed_pos->as<float>(), {}};
  to = {shape_of(s), std::make_unique<Block>(partial_bytes(s), Block::kOutput), nullptr, nullptr};
  attempt({[&] {
             workspace.stir();
             return fnce_partial(s.plan, arguments.pointer(), &anchors, to.block->bytes(), to.block->size(),
                                 workspace.pointer(), workspace.bytes(), nullptr);
           },
           {to.block.get()},
           workspace.valid() ? arguments.verdict() : Verdict::kRefused,
           nullptr,
           false});
  forget_unwritten(to);
}

void Session::backward() {
  const Slot& s = any_plan();
  const Held& from = anchors_[in_.byte() % anchors_.size()];
  if (!s.plan) return;
  if (!from.block || !(from.shape == shape_of(s))) return attempt_backward(in_, s.problem, s.plan, nullptr, true);
  const fnce_anchors anchors = {from.block->bytes(), from.pos->as<float>(), from.unmixed_pos->as<float>(), {}};
  attempt_backward(in_, s.problem, s.plan, &anchors, true);
}

void Session::merge() {
  const Slot& s = any_plan();
  if (!s.plan) return;
  std::vector<const void*> fitting;
  for (const Held& held : partials_)
    if (held.block && held.shape == shape_of(s)) fitting.push_back(held.block->bytes());
  if (fitting.empty()) return;
  Block out(partial_bytes(s), Block::kOutput);
  const auto count = static_cast<int32_t>(fitting.size());
  attempt({[&] { return fnce_merge(s.plan, fitting.data(), count, out.bytes(), out.size(), nullptr); },
           {&out},
           Verdict::kAccepted,
           nullptr,
           false});
  // Merging in place gives the same bits.
  void* first = const_cast<void*>(fitting[0]);
  require(fnce_merge(s.plan, fitting.data(), count, first, out.size(), nullptr) == FNCE_OK, "merging in place refused");
  fnce_layout layout;
  require(fnce_partial_layout(s.plan, &layout, sizeof layout) == FNCE_OK, "a plan does not tell its layout");
  const auto n = static_cast<size_t>(s.problem.n);
  for (const uint64_t at : {layout.m, layout.l})
    require(std::memcmp(out.bytes() + at, static_cast<char*>(first) + at, n * 4) == 0, "merging in place differs");
}

void Session::rows() {
  const Slot &s = any_plan(), &part = any_plan();
  Held& from = partials_[in_.byte() % partials_.size()];
  Held& to = partials_[in_.byte() % partials_.size()];
  if (!s.plan || !part.plan || !from.block || &from == &to || !(from.shape == shape_of(s))) return;
  const int64_t first = in_.small(-1, 20);
  const bool valid = part.problem.d == s.problem.d && part.problem.scores == s.problem.scores && first >= 0 &&
                     first <= s.problem.n - part.problem.n;
  to = {shape_of(part), std::make_unique<Block>(partial_bytes(part), Block::kOutput), nullptr, nullptr};
  attempt({[&] {
             return fnce_partial_rows(s.plan, from.block->bytes(), first, part.plan, to.block->bytes(),
                                      to.block->size(), nullptr);
           },
           {to.block.get()},
           valid ? Verdict::kAccepted : Verdict::kRefused,
           nullptr,
           false});
  forget_unwritten(to);
}

void Session::finish() {
  const Slot& s = any_plan();
  const Held& from = partials_[in_.byte() % partials_.size()];
  if (!s.plan || !from.block || !(from.shape == shape_of(s))) return;
  const Arguments arguments(in_, s.problem, kUsesOfFinish);
  Workspace workspace(in_, s.plan);
  attempt({[&] {
             workspace.stir();
             return fnce_finish(s.plan, arguments.pointer(), from.block->bytes(), from.block->size(),
                                workspace.pointer(), workspace.bytes(), nullptr);
           },
           arguments.outputs(), workspace.valid() ? arguments.verdict() : Verdict::kRefused});
}

void Session::scores() {
  const Slot& s = any_plan();
  if (!s.plan) return;
  const Arguments arguments(in_, s.problem, kUsesOfScores);
  Workspace workspace(in_, s.plan);
  Block pos(static_cast<size_t>(s.problem.n) * 4, Block::kOutput);
  fnce_score_buffers out = {};
  out.pos = pos.as<float>();
  attempt({[&] {
             workspace.stir();
             return fnce_scores(s.plan, arguments.pointer(), &out, workspace.pointer(), workspace.bytes(), nullptr);
           },
           {&pos},
           workspace.valid() ? arguments.verdict() : Verdict::kRefused});
}

void Session::push() {
  fnce_push push;
  require(fnce_push_init(&push, sizeof push) == FNCE_OK, "fnce_push_init refuses its own size");
  push.n = in_.small(0, 40);
  push.k = in_.small(1, 40);
  push.d = in_.small(1, 40);
  push.normalize = !in_.rarely(80);
  push.key_type = read_type(in_);
  push.queue_type = read_type(in_);
  Block keys(static_cast<size_t>(push.n * push.d) * element_size(push.key_type), Block::kInput);
  Block queue(static_cast<size_t>(push.k * push.d) * element_size(push.queue_type), Block::kOutput);
  Block position_in(8, Block::kInput), position_out(8, Block::kOutput);
  fill_numbers(in_, keys, push.n * push.d, push.key_type, 1);
  *position_in.as<int64_t>() = in_.rarely(30) ? read_odd_number(in_) : in_.byte() % push.k;
  keys.freeze();
  position_in.freeze();
  push.keys = keys.bytes();
  push.queue = queue.bytes();
  push.position_in = position_in.as<int64_t>();
  push.position_out = position_out.as<int64_t>();
  bool valid = *push.position_in >= 0 && *push.position_in < push.k;
  if (in_.rarely(30)) {
    const int64_t odd = read_odd_number(in_);
    const uint8_t what = in_.byte() % 9;
    valid = valid && what == 0 && push.n == 0;
    switch (what) {
      case 0: push.keys = keys.bytes() + 1; break;
      case 1: push.queue = nullptr; break;
      case 2: push.position_in = nullptr; break;
      case 3: push.position_out = reinterpret_cast<int64_t*>(position_out.bytes() + 4); break;
      case 4: push.struct_size = static_cast<uint64_t>(odd) & 0x3F; break;
      case 5: push.epsilon = 1e-19f; break;
      case 6: push.queue_type = 0; break;
      case 7: push.device = 0; break;
      default: push.k = -push.k;
    }
  }
  attempt({[&] { return fnce_queue_push(&push, nullptr); },
           {&queue, &position_out},
           valid ? Verdict::kAccepted : Verdict::kRefused,
           nullptr,
           false});
}

void Session::scale() {
  int64_t rows = in_.small(0, 40);
  const int64_t columns = in_.small(0, 40), count = in_.rarely(128) ? rows : 1;
  const int32_t type = read_type(in_);
  Block gradient(static_cast<size_t>(rows * columns) * 4, Block::kInput);
  Block upstream(static_cast<size_t>(count) * 4, Block::kInput);
  Block out(static_cast<size_t>(rows * columns) * element_size(type), Block::kOutput);
  fill_numbers(in_, gradient, rows * columns, FNCE_FLOAT32, 1);
  fill_numbers(in_, upstream, count, FNCE_FLOAT32, 1);
  gradient.freeze();
  upstream.freeze();
  int64_t upstream_count = count;
  Verdict verdict = Verdict::kAccepted;
  if (in_.rarely(20)) {
    if (in_.rarely(128))
      rows = -1 - rows;
    else
      upstream_count = count + 1 + (count == 0);
    verdict = upstream_count == 1 || (rows >= 0 && upstream_count == rows) ? Verdict::kEither : Verdict::kRefused;
    if (verdict == Verdict::kEither && rows >= 0) return;
  }
  attempt({[&] {
             return fnce_scale(FNCE_CPU, 0, gradient.as<float>(), rows, columns, upstream.as<float>(), upstream_count,
                               type, out.bytes(), nullptr);
           },
           {&out},
           verdict});
}

// Calls that need no arrays, with NULLs and numbers of all kinds.
void Session::odd_calls() {
  const Slot& s = any_plan();
  const int64_t odd = read_odd_number(in_);
  size_t bytes = 7;
  int32_t count = 7;
  fnce_status status = FNCE_OK;
  switch (in_.byte() % 10) {
    case 0: status = fnce_set_threads(static_cast<int32_t>(odd)); break;
    case 1: status = fnce_device_count(static_cast<int32_t>(odd), in_.rarely(60) ? nullptr : &count); break;
    case 2:
      require(std::strlen(fnce_status_string(static_cast<fnce_status>(odd))) > 0, "a status without a name");
      break;
    case 3: status = fnce_loss(s.plan, nullptr, nullptr, 0, nullptr); break;
    case 4: status = fnce_plan_workspace(in_.rarely(128) ? s.plan : nullptr, in_.rarely(128) ? &bytes : nullptr); break;
    case 5: status = fnce_run_workspace(nullptr, &bytes); break;
    case 6: status = fnce_merge(s.plan, nullptr, static_cast<int32_t>(odd), nullptr, bytes, nullptr); break;
    case 7: status = fnce_queue_push(nullptr, nullptr); break;
    case 8: status = fnce_scores(s.plan, nullptr, nullptr, nullptr, bytes, nullptr); break;
    default:
      fnce_plan_destroy(nullptr);
      require(std::strlen(fnce_build_info()) > 8 && fnce_get_threads() >= 1, "the library does not describe itself");
      require(*fnce_plan_describe(nullptr) == '\0', "a description of no plan");
  }
  if (status != FNCE_OK) check_refusal(status);
  if (fnce_get_threads() > 4) fnce_set_threads(2);
}

void Session::step() {
  switch (in_.byte() % 16) {
    case 0: return create();
    case 1: return loss(false);
    case 2: return prep();
    case 3: return partial();
    case 4: return finish();
    case 5: return merge();
    case 6: return rows();
    case 7: return loss(true);
    case 8: return push();
    case 9: return scale();
    case 10: return scores();
    case 11: return create_sibling();
    case 12: {
      Slot& slot = any_plan();
      fnce_plan_destroy(slot.plan);
      slot = {};
      return;
    }
    case 13: return odd_calls();
    case 14: return backward();
    default: return partial();
  }
}

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  fuzz::Session session(input);
  for (int steps = 0; steps < 12 && !input.empty(); ++steps) session.step();
  return 0;
}
