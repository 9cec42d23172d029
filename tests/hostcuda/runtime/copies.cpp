// cp.async and the addresses of ldmatrix.
#include "hostcuda/atoms_model.h"
#include "hostcuda/runtime/block.h"
#include "hostcuda/runtime/sanitizers.h"

namespace hostcuda {
namespace {

constexpr size_t kCopyBytes = 16;
constexpr uint32_t kWhole = 0xffffffffu;

// Ends the launch unless [address, address + 16) is an aligned piece of the block's shared memory.
void require_shared(Block& block, const char* what, const void* address) {
  const auto offset = static_cast<int64_t>(reinterpret_cast<uintptr_t>(address)) -
                      static_cast<int64_t>(reinterpret_cast<uintptr_t>(block.shared()));
  if (offset < 0 || offset + int64_t{kCopyBytes} > static_cast<int64_t>(block.shared_bytes()))
    block.fail("%s outside shared memory, at %lld of %zu bytes", what, static_cast<long long>(offset),
               block.shared_bytes());
  if (reinterpret_cast<uintptr_t>(address) % kCopyBytes)
    block.fail("%s at offset %lld of shared memory, no multiple of 16", what, static_cast<long long>(offset));
}

void land(const Copy& copy) {
  asan_unpoison(copy.shared, kCopyBytes);
  tsan_writes(copy.shared, kCopyBytes);
  if (copy.global)
    std::memcpy(copy.shared, copy.global, kCopyBytes);
  else
    std::memset(copy.shared, 0, kCopyBytes);
}

}  // namespace

void cp_async_16(void* shared, const void* global, bool valid) {
  Block& block = current_block();
  require_shared(block, "cp.async", shared);
  if (reinterpret_cast<uintptr_t>(global) % kCopyBytes)
    block.fail("cp.async from %p, which is no multiple of 16", global);
  if (valid) {
    tsan_reads(global, kCopyBytes);
    if (const void* poisoned = asan_first_poisoned(global, kCopyBytes))
      block.fail("cp.async reads outside an allocation of global memory, at %p", poisoned);
  }
  tsan_writes(shared, kCopyBytes);
  std::memset(shared, 0xff, kCopyBytes);
  asan_poison(shared, kCopyBytes);
  Copies& copies = block.current().copies;
  if (copies.last - copies.first == kMaxCopies) block.fail("more than %u cp.async on their way", kMaxCopies);
  copies.items[copies.last++ % kMaxCopies] = {static_cast<unsigned char*>(shared),
                                              valid ? static_cast<const unsigned char*>(global) : nullptr};
}

void cp_async_commit() {
  Block& block = current_block();
  Copies& copies = block.current().copies;
  if (copies.last_group - copies.first_group == kMaxCopyGroups)
    block.fail("more than %u groups of cp.async on their way", kMaxCopyGroups);
  copies.group_end[copies.last_group++ % kMaxCopyGroups] = copies.last;
}

void cp_async_wait(int leave) {
  Copies& copies = current_block().current().copies;
  while (static_cast<int>(copies.last_group - copies.first_group) > leave) {
    const unsigned end = copies.group_end[copies.first_group++ % kMaxCopyGroups];
    for (; copies.first != end; ++copies.first) land(copies.items[copies.first % kMaxCopies]);
  }
}

const Slot* ldmatrix_rows(const void* row, Op op) {
  require_shared(current_block(), name_of(op), row);
  return warp_exchange(&row, sizeof row, op, kWhole, {"atoms", 0});
}

}  // namespace hostcuda
