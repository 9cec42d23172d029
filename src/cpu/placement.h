// Where the threads of a call run. Linux may wake a thread on the processor of the thread that wakes it, although
// another one is idle, when other threads of the program were busy there a moment before; both then share one for many
// milliseconds, which is longer than a call. So each thread takes a processor of its own at its first task.
#pragma once
#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fnce::cpu {

class Processors {
 public:
  // Takes the processor that the calling thread runs on. If another thread of the call has it, the calling thread moves
  // to one that is free, if it may run there. What it may run on stays as it was.
  void take() {
#if defined(__linux__)
    if (take(sched_getcpu())) return;
    cpu_set_t allowed;
    // Fails where there are more processors than such a set holds: then the thread stays.
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    cpu_set_t free = allowed;
    for (int i = 0; i < CPU_SETSIZE; ++i)
      if (is_taken(i)) CPU_CLR(i, &free);
    if (CPU_COUNT(&free) == 0 || sched_setaffinity(0, sizeof(free), &free) != 0) return;
    sched_setaffinity(0, sizeof(allowed), &allowed);
    take(sched_getcpu());
#endif
  }

 private:
#if defined(__linux__)
  static constexpr int kBits = 64;
  std::atomic<uint64_t> taken_[CPU_SETSIZE / kBits] = {};

  static uint64_t bit(int processor) { return uint64_t{1} << (processor % kBits); }
  bool is_taken(int processor) const {
    return (taken_[processor / kBits].load(std::memory_order_relaxed) & bit(processor)) != 0;
  }
  // True if nobody had it; also where the processor is not known.
  bool take(int processor) {
    if (processor < 0 || processor >= CPU_SETSIZE) return true;
    return (taken_[processor / kBits].fetch_or(bit(processor), std::memory_order_relaxed) & bit(processor)) == 0;
  }
#endif
};

}  // namespace fnce::cpu
