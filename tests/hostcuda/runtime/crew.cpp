// The memory of crews.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "hostcuda/runtime/block.h"
#include "hostcuda/runtime/sanitizers.h"

namespace hostcuda {
namespace {

constexpr size_t kRedZone = 4096;
constexpr size_t kArena = kMaxShared + 2 * kRedZone;
constexpr size_t kWarps = kMaxThreads / kWarp;

// Zeroed memory past the allocator: pages that are never touched cost nothing, and no sanitizer follows it.
template <class T>
T* map(size_t count) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("hostcuda: memory of a block");
    std::abort();
  }
  return static_cast<T*>(memory);
}

template <class T>
void unmap(T* memory, size_t count) {
  munmap(memory, count * sizeof(T));
}

// Whole warps share with whole warps, so that no __syncwarp orders others; two lanes do with their neighbours.
unsigned tsan_index(unsigned thread) {
  constexpr unsigned kCycle = 128;
  const unsigned index = thread % kCycle;
  return index < kTsanThreads ? index : index - (kCycle - kTsanThreads);
}

}  // namespace

Crew::Crew()
    : fibers(map<Fiber>(kMaxThreads)),
      copies(map<Copy>(size_t{kMaxThreads} * kMaxCopies)),
      copy_groups(map<unsigned>(size_t{kMaxThreads} * kMaxCopyGroups)),
      warps(map<Warp>(kWarps)),
      arena(map<unsigned char>(kArena)) {}

Crew::~Crew() {
  for (void* thread : tsan_threads)
    if (thread) __tsan_destroy_fiber(thread);
  for (unsigned t = 0; t < size; ++t) free_stack(fibers[t].strand);
  unmap(fibers, kMaxThreads);
  unmap(copies, size_t{kMaxThreads} * kMaxCopies);
  unmap(copy_groups, size_t{kMaxThreads} * kMaxCopyGroups);
  unmap(warps, kWarps);
  unmap(arena, kArena);
}

void Crew::release_all(const void* token) const {
  if (!has_tsan()) return;
  void* const self = __tsan_get_current_fiber();
  for (void* thread : tsan_threads) {
    if (!thread) continue;
    tsan_switch(thread);
    tsan_release(token);
  }
  tsan_switch(self);
}

void Crew::grow(unsigned threads) {
  for (; size < threads; ++size) {
    Fiber* fiber = new (fibers + size) Fiber;
    fiber->copies.items = copies + size_t{size} * kMaxCopies;
    fiber->copies.group_end = copy_groups + size_t{size} * kMaxCopyGroups;
    allocate_stack(fiber->strand);
    if (!has_tsan()) continue;
    void*& thread = tsan_threads[tsan_index(size)];
    if (!thread) thread = __tsan_create_fiber(0);
    fiber->strand.tsan = thread;
  }
}

unsigned char* Crew::shared() const { return arena + kRedZone; }

void Crew::start_shared_memory(size_t bytes) const {
  unseen_fill(shared(), 0xff, bytes);  // NaN in every format
  asan_poison(arena, kRedZone);
  asan_poison(shared() + bytes, kMaxShared - bytes + kRedZone);
}

void Crew::end_shared_memory() const { asan_unpoison(arena, kArena); }

}  // namespace hostcuda
