#include "core/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "core/limits.h"

namespace fnce {
namespace {

int32_t usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::clamp(CPU_COUNT(&set), 1, kMaxThreads);
  return std::clamp(static_cast<int32_t>(std::thread::hardware_concurrency()), 1, kMaxThreads);
}

std::atomic<int32_t>& threads() {
  static std::atomic<int32_t> value{usable_cpus()};
  return value;
}

}  // namespace

int32_t default_threads() { return threads().load(std::memory_order_relaxed); }
void set_default_threads(int32_t value) { threads().store(value, std::memory_order_relaxed); }

}  // namespace fnce
