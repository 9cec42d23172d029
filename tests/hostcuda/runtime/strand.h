// A strand is a stack to run on: a fiber's, or the one that an OS thread came with. Switching between two of them is a
// dozen instructions, plus what the sanitizers have to be told.
#pragma once
#include <cstddef>

namespace hostcuda {

constexpr size_t kStackBytes = size_t{256} << 10;  // address space; pages that are never touched cost nothing

struct Strand {
  void* stack_pointer = nullptr;
  void* stack = nullptr;  // lowest address
  size_t stack_bytes = 0;
  void* tsan = nullptr;  // ThreadSanitizer's thread
  void* asan_fake_stack = nullptr;
};

void allocate_stack(Strand& strand);
void free_stack(Strand& strand);
// The next switch to the strand calls entry(). entry() never returns; it calls enter_strand first. `color` spreads the
// tops of stacks over the cache's sets.
void prepare(Strand& strand, void (*entry)(), unsigned color);

// `from` is the running strand; it continues here when somebody switches back to it. No order of memory comes with a
// switch.
void switch_strand(Strand& from, Strand& to);
// Likewise, from a strand that ends.
void leave_strand(Strand& from, Strand& to);
// First thing on a new strand. `origin` learns the bounds of the stack that the switch came from; may be null.
void enter_strand(Strand* origin);

}  // namespace hostcuda
