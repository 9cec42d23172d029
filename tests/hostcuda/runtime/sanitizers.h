// The sanitizers, if the program has any. The runtime is compiled without them, so that they check kernels alone, and
// finds them as weak symbols: one object serves every build. Its own bookkeeping must not look like the kernel's
// memory, which is why it copies and fills with functions of its own: memcpy and memset are watched wherever they are
// called.
#pragma once
#include <cstddef>

extern "C" {
#define HOSTCUDA_WEAK __attribute__((weak))
HOSTCUDA_WEAK void* __tsan_get_current_fiber();
HOSTCUDA_WEAK void* __tsan_create_fiber(unsigned flags);
HOSTCUDA_WEAK void __tsan_destroy_fiber(void* fiber);
HOSTCUDA_WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
HOSTCUDA_WEAK void __tsan_acquire(void* address);
HOSTCUDA_WEAK void __tsan_release(void* address);
HOSTCUDA_WEAK void __tsan_read_range(void* address, unsigned long size);
HOSTCUDA_WEAK void __tsan_write_range(void* address, unsigned long size);
HOSTCUDA_WEAK void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
HOSTCUDA_WEAK void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
HOSTCUDA_WEAK void __asan_poison_memory_region(void const volatile* address, size_t size);
HOSTCUDA_WEAK void __asan_unpoison_memory_region(void const volatile* address, size_t size);
HOSTCUDA_WEAK void* __asan_region_is_poisoned(void* address, size_t size);
#undef HOSTCUDA_WEAK
}

namespace hostcuda {

inline bool has_tsan() { return __tsan_create_fiber != nullptr; }

// Goes on as another of ThreadSanitizer's threads, without an order of memory.
inline void tsan_switch(void* thread) {
  constexpr unsigned kNoSync = 1;
  if (__tsan_switch_to_fiber && __tsan_get_current_fiber() != thread) __tsan_switch_to_fiber(thread, kNoSync);
}
inline void tsan_acquire(const void* token) {
  if (__tsan_acquire) __tsan_acquire(const_cast<void*>(token));
}
inline void tsan_release(const void* token) {
  if (__tsan_release) __tsan_release(const_cast<void*>(token));
}
inline void tsan_reads(const void* address, size_t size) {
  if (__tsan_read_range) __tsan_read_range(const_cast<void*>(address), size);
}
inline void tsan_writes(void* address, size_t size) {
  if (__tsan_write_range) __tsan_write_range(address, size);
}
inline void asan_poison(const void* address, size_t size) {
  if (__asan_poison_memory_region) __asan_poison_memory_region(address, size);
}
inline void asan_unpoison(const void* address, size_t size) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(address, size);
}
inline const void* asan_first_poisoned(const void* address, size_t size) {
  return __asan_region_is_poisoned ? __asan_region_is_poisoned(const_cast<void*>(address), size) : nullptr;
}

inline void unseen_copy(void* to, const void* from, size_t size) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}
inline void unseen_fill(void* to, int byte, size_t size) {
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
}

}  // namespace hostcuda
