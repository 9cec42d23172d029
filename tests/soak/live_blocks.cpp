// Counts the blocks of memory in use, by standing in front of the C library's allocator: exact, where its own
// statistics include what it keeps for later. Under AddressSanitizer, which has taken that place, its count of bytes.
#include "soak/live_blocks.h"

#include <cerrno>
#include <cstddef>

#ifdef FNCE_SOAK_ASAN
// This is declared in sanitizer/allocator_interface.h, which GCC does not install.
extern "C" size_t __sanitizer_get_current_allocated_bytes();

namespace soak {
int64_t live() { return static_cast<int64_t>(__sanitizer_get_current_allocated_bytes()); }
}  // namespace soak

#else
#include <atomic>

namespace {
std::atomic<int64_t> g_live{0};

void* counted(void* block) {
  if (block != nullptr) g_live.fetch_add(1, std::memory_order_relaxed);
  return block;
}
}  // namespace

namespace soak {
int64_t live() { return g_live.load(); }
}  // namespace soak

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t size) { return counted(__libc_malloc(size)); }
void* calloc(size_t count, size_t size) { return counted(__libc_calloc(count, size)); }
void* memalign(size_t alignment, size_t size) { return counted(__libc_memalign(alignment, size)); }
void* aligned_alloc(size_t alignment, size_t size) { return counted(__libc_memalign(alignment, size)); }
int posix_memalign(void** out, size_t alignment, size_t size) {
  *out = counted(__libc_memalign(alignment, size));
  return *out == nullptr ? ENOMEM : 0;
}
void* realloc(void* block, size_t size) {
  if (block == nullptr) return malloc(size);
  void* moved = __libc_realloc(block, size);
  if (size == 0 && moved == nullptr) g_live.fetch_sub(1, std::memory_order_relaxed);
  return moved;
}
void free(void* block) {
  if (block != nullptr) g_live.fetch_sub(1, std::memory_order_relaxed);
  __libc_free(block);
}
}
#endif
