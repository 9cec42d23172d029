// One thread block at work: its fibers, their meeting points, shared memory, and who runs next. A block stays on one OS
// thread; blocks are pooled, because stacks are dear.
#pragma once
#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "hostcuda/device.h"
#include "hostcuda/launch.h"
#include "hostcuda/runtime/strand.h"

namespace hostcuda {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kMaxShared = size_t{227} << 10;  // of any device; the limit of the current one is checked at launch

// A launch, as its blocks share it.
struct GridRun {
  Grid3 grid;
  unsigned threads = 0;
  size_t shared_bytes = 0;
  const char* name = "";
  const std::function<void()>* body = nullptr;
  Options options;
  std::vector<unsigned> block_order;
  std::atomic<unsigned> next_block{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;  // guards message
  std::string message;
  // What ThreadSanitizer orders the start and the end of all threads by.
  char started[8], ended[8];
};

// A meeting point. Waiters wait for `generation` to change. Two sets of results, used in turn, let the next meeting
// begin while the slower threads still read what the last one left.
struct Meeting {
  uint64_t generation = 0;
  unsigned arrived = 0;
  Op op = Op::kSyncthreads;
  Where where = {"", 0};
  unsigned votes[2] = {};
  char tokens[2][8];  // ThreadSanitizer's

  unsigned side() const { return static_cast<unsigned>(generation & 1); }
};

struct MmaOperands {
  uint32_t a[kWarp][4];
  uint32_t b[kWarp][2];
  float d[kWarp][4];
};

struct Warp {
  Meeting collective, barrier;
  Slot slots[2][kWarp];
  MmaOperands mma[2];
};

// The copies of one thread that are on their way: those of closed groups in order, then those of the open one. All four
// are counted without end; indices are modulo the capacity.
struct Copy {
  unsigned char* shared;
  const unsigned char* global;  // null: zeros
};
constexpr unsigned kMaxCopies = 1024, kMaxCopyGroups = 64;
struct Copies {
  Copy* items;          // [kMaxCopies]
  unsigned* group_end;  // [kMaxCopyGroups]
  unsigned first, last, first_group, last_group;
};

struct Fiber {
  Context context;
  Strand strand;
  const uint64_t* awaited = nullptr;  // waits while *awaited == awaited_value
  uint64_t awaited_value = 0;
  const Meeting* meeting = nullptr;
  bool done = false;
  bool fenced = false;
  Copies copies = {};

  bool ready() const { return !done && (!awaited || *awaited != awaited_value); }
};

// ThreadSanitizer tells 255 threads apart. When there are more they take turns, and what one did counts as ordered
// before what its successor does, which hides races. So two crews at work have 126 of its threads each, and of threads
// that share one (those of equal number modulo 128) the races with each other go unseen. Blocks that use a crew in turn
// count as ordered too.
constexpr unsigned kTsanThreads = 126, kTsanCrews = 2;

// What a block runs on: fibers, meeting points, shared memory.
struct Crew {
  Fiber* const fibers;  // [kMaxThreads]
  Copy* const copies;
  unsigned* const copy_groups;
  Warp* const warps;
  unsigned char* const arena;  // shared memory between red zones
  Meeting barrier;
  unsigned size = 0;  // fibers that have a stack
  void* tsan_threads[kTsanThreads] = {};
  char begun[8],
      ended[8];  // what ThreadSanitizer orders the crew's blocks by: a block begins when the one before has ended

  Crew();
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  void grow(unsigned threads);
  // As if every fiber released the token: after a fault they do not come to it.
  void release_all(const void* token) const;
  unsigned char* shared() const;
  void start_shared_memory(size_t bytes) const;
  void end_shared_memory() const;
};

class Block {
 public:
  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Runs one block of the grid to its end or to the first failure, which goes to run.message. `crew` < kTsanCrews.
  void run(GridRun& run, unsigned block_index, unsigned crew);

  // Called by the running fiber.
  Fiber& current() { return *current_; }
  Warp& warp() { return crew_->warps[current_->context.warp]; }
  // Arrives at a meeting of `expected` threads; true for the last one, which then has the results to make before
  // complete().
  bool arrive(Meeting& meeting, unsigned expected, Op op, Where where);
  void complete(Meeting& meeting);
  void await(Meeting& meeting);
  // Ends the launch. Fibers are abandoned where they stand, so nobody on the way may hold memory.
  [[noreturn]] void fail(const char* text, ...) __attribute__((format(printf, 2, 3)));
  [[noreturn]] void fail(const char* text, va_list arguments);
  unsigned threads() const { return run_->threads; }
  unsigned live() const { return live_; }
  Meeting& barrier() { return crew_->barrier; }
  unsigned char* shared() const { return crew_->shared(); }
  size_t shared_bytes() const { return run_->shared_bytes; }

 private:
  static void entry();
  [[noreturn]] void finish_thread();
  void start_fibers(unsigned block_index);
  void start_meetings();
  void order_fibers();
  Fiber* next();
  Fiber* next_in_order();
  Fiber* next_in_warp();
  void switch_from(Fiber& from, bool ends);
  void report_deadlock();
  unsigned random(unsigned below);

  GridRun* run_ = nullptr;
  std::unique_ptr<Crew> crews_[kTsanCrews];
  Crew* crew_ = nullptr;
  Fiber* current_ = nullptr;
  Strand main_;
  unsigned live_ = 0;
  bool failed_ = false;
  char message_[600];
  std::vector<unsigned> order_;
  unsigned cursor_ = 0, greedy_warp_ = 0;
  uint64_t random_state_ = 0;
};

Block& current_block();
const char* name_of(Op op);
const char* file_of(const Where& where);  // without its folders

// Runs all blocks of a grid. The message of the first failure, or nothing.
std::string run_grid(Grid3 grid, unsigned threads, size_t shared_bytes, const char* name,
                     const std::function<void()>& body);

}  // namespace hostcuda
