// Who runs next.
#include <numeric>
#include <utility>

#include "hostcuda/runtime/block.h"

namespace hostcuda {

unsigned Block::random(unsigned below) {
  // splitmix64
  uint64_t z = random_state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<unsigned>((z ^ (z >> 31)) % below);
}

void Block::order_fibers() {
  const unsigned count = run_->threads;
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0u);
  if (run_->options.schedule == Schedule::kReverse)
    for (unsigned i = 0; i < count; ++i) order_[i] = count - 1 - i;
  cursor_ = count;  // next_in_order begins a round
  greedy_warp_ = random((count + kWarp - 1) / kWarp);
}

Fiber* Block::next() { return run_->options.schedule == Schedule::kWarp ? next_in_warp() : next_in_order(); }

Fiber* Block::next_in_order() {
  const unsigned count = run_->threads;
  for (unsigned tried = 0; tried < count; ++tried) {
    if (++cursor_ >= count) {
      cursor_ = 0;
      if (run_->options.schedule == Schedule::kRandom)
        for (unsigned i = count; i > 1; --i) std::swap(order_[i - 1], order_[random(i)]);
    }
    Fiber& fiber = crew_->fibers[order_[cursor_]];
    if (fiber.ready()) return &fiber;
  }
  if (run_->options.schedule != Schedule::kRandom) return nullptr;
  // A new order in the middle of a round may have hidden somebody from this one.
  for (unsigned t = 0; t < count; ++t)
    if (crew_->fibers[t].ready()) return &crew_->fibers[t];
  return nullptr;
}

Fiber* Block::next_in_warp() {
  const unsigned count = run_->threads, warps = (count + kWarp - 1) / kWarp;
  const auto first_ready = [&](unsigned warp) -> Fiber* {
    for (unsigned t = warp * kWarp; t < count && t < (warp + 1) * kWarp; ++t)
      if (crew_->fibers[t].ready()) return &crew_->fibers[t];
    return nullptr;
  };
  if (Fiber* fiber = first_ready(greedy_warp_)) return fiber;
  const unsigned start = random(warps);
  for (unsigned i = 0; i < warps; ++i) {
    const unsigned warp = (start + i) % warps;
    if (Fiber* fiber = first_ready(warp)) {
      greedy_warp_ = warp;
      return fiber;
    }
  }
  return nullptr;
}

}  // namespace hostcuda
