// Grids: options, the pool of blocks, the worker threads.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>
#include <thread>

#include "hostcuda/runtime/block.h"
#include "hostcuda/runtime/sanitizers.h"

namespace hostcuda {
namespace {

constexpr const char* kScheduleNames[] = {"forward", "reverse", "random", "warp"};

[[noreturn]] void refuse_environment(const char* name, const char* value, const char* allowed) {
  std::fprintf(stderr, "hostcuda: %s is '%s'; it may be %s\n", name, value, allowed);
  std::exit(2);
}

uint64_t number_from_environment(const char* name, uint64_t standard) {
  const char* text = std::getenv(name);
  if (!text) return standard;
  char* end = nullptr;
  const uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end) refuse_environment(name, text, "a number");
  return value;
}

Options options_from_environment() {
  Options options;
  if (const char* text = std::getenv("FNCE_HOSTCUDA_SCHEDULE")) {
    size_t i = 0;
    while (i < std::size(kScheduleNames) && std::strcmp(text, kScheduleNames[i]) != 0) ++i;
    if (i == std::size(kScheduleNames))
      refuse_environment("FNCE_HOSTCUDA_SCHEDULE", text, "forward, reverse, random or warp");
    options.schedule = kSchedules[i];
  }
  options.seed = number_from_environment("FNCE_HOSTCUDA_SEED", options.seed);
  options.workers = static_cast<unsigned>(number_from_environment("FNCE_HOSTCUDA_WORKERS", options.workers));
  return options;
}

// Blocks that are not at work, and the options. Never destroyed: kernels may run until the very end of the program.
struct Shared {
  std::mutex mutex;
  std::vector<Block*> idle;
  Options options = options_from_environment();
};

Shared& shared() {
  static Shared* const instance = new Shared;
  return *instance;
}
// Made before there are threads: ThreadSanitizer does not see what guards the first call.
[[maybe_unused]] const Shared& made_early = shared();

std::vector<Block*> take_blocks(unsigned count) {
  std::vector<Block*>& idle = shared().idle;
  const std::lock_guard<std::mutex> lock(shared().mutex);
  while (idle.size() < count) idle.push_back(new Block);
  const std::vector<Block*> blocks(idle.end() - count, idle.end());
  idle.resize(idle.size() - count);
  return blocks;
}

void put_back(const std::vector<Block*>& blocks) {
  const std::lock_guard<std::mutex> lock(shared().mutex);
  shared().idle.insert(shared().idle.end(), blocks.begin(), blocks.end());
}

// Whoever is free takes the next block.
void work(GridRun& run, Block* block) {
  for (unsigned i = run.next_block++; i < run.block_order.size() && !run.failed; i = run.next_block++)
    block->run(run, run.block_order[i], 0);
}

// Under ThreadSanitizer the blocks are divided beforehand among crews, which are one worker's two or two workers' only
// ones. By the parity of the bits of 0, 1, 2 ..., so that blocks at any distance from each other are soon found in
// different crews.
void work_watched(GridRun& run, Block* block, unsigned worker, unsigned workers) {
  for (unsigned i = 0; i < run.block_order.size() && !run.failed; ++i) {
    const unsigned crew = static_cast<unsigned>(std::popcount(i)) % kTsanCrews;
    if (workers == 1)
      block->run(run, run.block_order[i], crew);
    else if (crew == worker)
      block->run(run, run.block_order[i], 0);
  }
}

void order_blocks(GridRun& run) {
  std::vector<unsigned>& order = run.block_order;
  order.resize(size_t{run.grid.x} * run.grid.y * run.grid.z);
  std::iota(order.begin(), order.end(), 0u);
  const unsigned count = static_cast<unsigned>(order.size());
  if (run.options.schedule == Schedule::kReverse)
    for (unsigned i = 0; i < count; ++i) order[i] = count - 1 - i;
  if (run.options.schedule == Schedule::kRandom || run.options.schedule == Schedule::kWarp) {
    uint64_t state = run.options.seed | 1;
    for (unsigned i = count; i > 1; --i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      std::swap(order[i - 1], order[(state >> 33) % i]);
    }
  }
}

}  // namespace

const char* name_of(Schedule schedule) { return kScheduleNames[static_cast<int>(schedule)]; }

Options options() {
  const std::lock_guard<std::mutex> lock(shared().mutex);
  return shared().options;
}

void set_options(const Options& options) {
  const std::lock_guard<std::mutex> lock(shared().mutex);
  shared().options = options;
}

std::string run_grid(Grid3 grid, unsigned threads, size_t shared_bytes, const char* name,
                     const std::function<void()>& body) {
  const auto run = std::make_unique<GridRun>();
  run->grid = grid;
  run->threads = threads;
  run->shared_bytes = shared_bytes;
  run->name = name;
  run->body = &body;
  run->options = options();
  order_blocks(*run);
  tsan_release(run->started);
  unsigned workers = std::clamp(run->options.workers, 1u, static_cast<unsigned>(run->block_order.size()));
  if (has_tsan()) workers = std::min(workers, kTsanCrews);
  const std::vector<Block*> blocks = take_blocks(workers);
  const auto work_as = [&](unsigned worker) {
    has_tsan() ? work_watched(*run, blocks[worker], worker, workers) : work(*run, blocks[worker]);
  };
  std::vector<std::thread> helpers;
  for (unsigned i = 1; i < workers; ++i) helpers.emplace_back(work_as, i);
  work_as(0);
  for (std::thread& helper : helpers) helper.join();
  put_back(blocks);
  tsan_acquire(run->ended);
  return run->message;
}

}  // namespace hostcuda
