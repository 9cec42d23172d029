// Blocks: starting their threads, choosing who runs, ending them.
#include "hostcuda/runtime/block.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hostcuda/runtime/sanitizers.h"

namespace hostcuda {
namespace {

thread_local Block* running;  // the block at work on this OS thread

}  // namespace

Block& current_block() { return *running; }
const Context& context() { return running->current().context; }
bool in_kernel() { return running != nullptr; }

void Block::run(GridRun& run, unsigned block_index, unsigned crew_index) {
  run_ = &run;
  running = this;
  failed_ = false;
  live_ = run.threads;
  random_state_ = run.options.seed * 0x9e3779b97f4a7c15u + block_index;
  std::unique_ptr<Crew>& crew = crews_[crew_index];
  if (!crew) crew = std::make_unique<Crew>();
  crew_ = crew.get();
  if (__tsan_get_current_fiber) main_.tsan = __tsan_get_current_fiber();
  crew_->grow(run.threads);
  crew_->start_shared_memory(run.shared_bytes);
  // Threads are ordered behind the block before, and not behind threads of their own block that have ended already.
  tsan_acquire(crew_->ended);
  tsan_release(crew_->begun);
  start_meetings();
  start_fibers(block_index);
  order_fibers();
  current_ = next();
  main_.stack = nullptr;
  switch_strand(main_, current_->strand);
  crew_->end_shared_memory();
  running = nullptr;
  if (!failed_) return;
  crew->release_all(run.ended);
  crew.reset();  // its fibers hang in the middle of their work
  run.failed = true;
  const std::lock_guard<std::mutex> lock(run.mutex);
  if (run.message.empty()) run.message = message_;
}

void Block::start_meetings() {
  const auto start = [](Meeting& meeting) {
    meeting.generation = 0;
    meeting.arrived = 0;
  };
  start(crew_->barrier);
  for (unsigned w = 0; w < (run_->threads + kWarp - 1) / kWarp; ++w) {
    start(crew_->warps[w].collective);
    start(crew_->warps[w].barrier);
  }
}

void Block::start_fibers(unsigned block_index) {
  const Grid3& grid = run_->grid;
  for (unsigned t = 0; t < run_->threads; ++t) {
    Fiber& fiber = crew_->fibers[t];
    fiber.context = {
        .thread_index = {t, 0, 0},
        .block_index = {block_index % grid.x, block_index / grid.x % grid.y, block_index / grid.x / grid.y},
        .block_size = {run_->threads, 1, 1},
        .grid_size = {grid.x, grid.y, grid.z},
        .thread = t,
        .lane = t % kWarp,
        .warp = t / kWarp,
        .shared = crew_->shared(),
        .shared_bytes = run_->shared_bytes};
    fiber.awaited = nullptr;
    fiber.done = fiber.fenced = false;
    fiber.copies.first = fiber.copies.last = fiber.copies.first_group = fiber.copies.last_group = 0;
    prepare(fiber.strand, &Block::entry, t);
  }
}

void Block::entry() {
  Block& block = *running;
  // Only the first strand comes from the OS thread's own; for the others the bounds are already known.
  enter_strand(block.main_.stack ? nullptr : &block.main_);
  tsan_acquire(block.run_->started);
  tsan_acquire(block.crew_->begun);
  (*block.run_->body)();
  tsan_release(block.crew_->ended);
  tsan_release(block.run_->ended);
  block.finish_thread();
}

void Block::finish_thread() {
  Fiber& fiber = *current_;
  const Meeting& collective = warp().collective;
  const Meeting& warp_barrier = warp().barrier;
  const Meeting& block_barrier = barrier();
  for (const Meeting* meeting : {&block_barrier, &collective, &warp_barrier})
    if (meeting->arrived)
      fail("it ends while %u thread%s in %s at %s:%d", meeting->arrived, meeting->arrived == 1 ? " waits" : "s wait",
           name_of(meeting->op), file_of(meeting->where), meeting->where.line);
  fiber.done = true;
  --live_;
  switch_from(fiber, true);
  std::abort();  // nobody switches to a thread that is done
}

void Block::switch_from(Fiber& from, bool ends) {
  Fiber* to = failed_ ? nullptr : next();
  if (!to && !failed_ && live_) report_deadlock();
  if (to == &from) return;
  current_ = to;
  Strand& target = to ? to->strand : main_;
  if (ends)
    leave_strand(from.strand, target);
  else
    switch_strand(from.strand, target);
}

bool Block::arrive(Meeting& meeting, unsigned expected, Op op, Where where) {
  if (meeting.arrived == 0) {
    meeting.op = op;
    meeting.where = where;
  } else if (meeting.op != op || meeting.where.line != where.line ||
             (meeting.where.file != where.file && std::strcmp(meeting.where.file, where.file) != 0)) {
    fail("it comes to %s at %s:%d, but %u other%s in %s at %s:%d", name_of(op), file_of(where), where.line,
         meeting.arrived, meeting.arrived == 1 ? " waits" : "s wait", name_of(meeting.op), file_of(meeting.where),
         meeting.where.line);
  }
  return ++meeting.arrived == expected;
}

void Block::complete(Meeting& meeting) {
  meeting.arrived = 0;
  ++meeting.generation;
}

void Block::await(Meeting& meeting) {
  Fiber& fiber = *current_;
  fiber.awaited = &meeting.generation;
  fiber.awaited_value = meeting.generation;
  fiber.meeting = &meeting;
  switch_from(fiber, false);
  fiber.awaited = nullptr;
}

void Block::fail(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  fail(text, arguments);
}

void Block::fail(const char* text, va_list arguments) {
  const Context& c = current_->context;
  tsan_switch(main_.tsan);  // which watches how the message is made
  if (!failed_) {
    const int head =
        std::snprintf(message_, sizeof message_, "kernel %.200s, thread %u of block (%u, %u, %u): ", run_->name,
                      c.thread, c.block_index.x, c.block_index.y, c.block_index.z);
    std::vsnprintf(message_ + head, sizeof message_ - static_cast<size_t>(head), text, arguments);
  }
  tsan_switch(current_->strand.tsan);
  failed_ = true;
  switch_from(*current_, false);
  std::abort();  // a block that has failed runs none of its threads again
}

void Block::report_deadlock() {
  tsan_switch(main_.tsan);
  const Context& c = crew_->fibers[0].context;
  size_t length = 0;
  const auto add = [&](const char* text, auto... values) {
    const int added = std::snprintf(message_ + length, sizeof message_ - length, text, values...);
    length = std::min(length + static_cast<size_t>(added), sizeof message_ - 1);
  };
  add("kernel %.200s, deadlock: in block (%u, %u, %u)", run_->name, c.block_index.x, c.block_index.y, c.block_index.z);
  // One thread of every place where some wait, as far as the message reaches.
  for (unsigned t = 0; t < run_->threads; ++t) {
    const Fiber& fiber = crew_->fibers[t];
    if (fiber.done) continue;
    const Meeting& meeting = *fiber.meeting;
    unsigned first = 0;
    while (crew_->fibers[first].done || crew_->fibers[first].meeting != &meeting) ++first;
    if (first != t) continue;
    add(" thread %u waits in %s at %s:%d, where %u ha%s come;", t, name_of(meeting.op), file_of(meeting.where),
        meeting.where.line, meeting.arrived, meeting.arrived == 1 ? "s" : "ve");
  }
  add(" %u of %u threads live", live_, run_->threads);
  tsan_switch(current_->strand.tsan);
  failed_ = true;
}

}  // namespace hostcuda
