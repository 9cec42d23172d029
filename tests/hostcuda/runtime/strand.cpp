#include "hostcuda/runtime/strand.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "hostcuda/runtime/sanitizers.h"

namespace hostcuda {
namespace {

constexpr size_t kPage = 4096;

// Saves the callee-saved registers of the System V ABI on the old stack and takes them from the new one.
extern "C" void hostcuda_swap(void** save_stack_pointer, void* stack_pointer);
asm(R"(
.text
.type hostcuda_swap, @function
.globl hostcuda_swap
hostcuda_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hostcuda_swap, .-hostcuda_swap
)");
constexpr int kSavedRegisters = 6;

void swap(Strand& from, Strand& to, void** fake_stack) {
  tsan_switch(to.tsan);
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(fake_stack, to.stack, to.stack_bytes);
  hostcuda_swap(&from.stack_pointer, to.stack_pointer);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
}

}  // namespace

void allocate_stack(Strand& strand) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
    std::perror("hostcuda: stack of a fiber");
    std::abort();
  }
  strand.stack = static_cast<char*>(memory) + kPage;
  strand.stack_bytes = kStackBytes;
}

void free_stack(Strand& strand) {
  // The poison of frames that were never left would outlive the mapping.
  asan_unpoison(strand.stack, kStackBytes);
  munmap(static_cast<char*>(strand.stack) - kPage, kStackBytes + kPage);
}

void prepare(Strand& strand, void (*entry)(), unsigned color) {
  constexpr unsigned kColors = 32, kLine = 64;
  char* top = static_cast<char*>(strand.stack) + kStackBytes - (color % kColors) * 2 * kLine;
  void** words = reinterpret_cast<void**>(top);
  *--words = nullptr;  // entry's return address: as after a call, the stack pointer is 8 past a multiple of 16
  *--words = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--words = nullptr;
  strand.stack_pointer = words;
  strand.asan_fake_stack = nullptr;
}

void switch_strand(Strand& from, Strand& to) { swap(from, to, &from.asan_fake_stack); }

void leave_strand(Strand& from, Strand& to) { swap(from, to, nullptr); }

void enter_strand(Strand* origin) {
  if (!__sanitizer_finish_switch_fiber) return;
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!origin) return;
  origin->stack = const_cast<void*>(bottom);
  origin->stack_bytes = size;
}

}  // namespace hostcuda
