// Barriers, warp collectives, fences.
#include <cstdarg>
#include <cstring>

#include "hostcuda/runtime/block.h"
#include "hostcuda/runtime/sanitizers.h"

namespace hostcuda {
namespace {

constexpr const char* kNames[] = {
    "__syncthreads",   "__syncthreads_or", "__syncthreads_and", "__syncthreads_count", "__syncwarp", "__shfl_sync",
    "__shfl_xor_sync", "__shfl_down_sync", "__shfl_up_sync",    "__any_sync",          "__all_sync", "__ballot_sync",
    "ldmatrix",        "ldmatrix.trans",   "mma (f16)",         "mma (bf16)",
};

void require_whole_warp(Block& block, Op op, uint32_t mask, const Where& where) {
  if (mask != 0xffffffffu)
    block.fail("%s at %s:%d has the mask %08x: only whole warps are modelled", name_of(op), file_of(where), where.line,
               mask);
  if (block.threads() % kWarp)
    block.fail("%s at %s:%d in a block of %u threads, no multiple of 32", name_of(op), file_of(where), where.line,
               block.threads());
}

// A memcpy of a fixed size is an instruction, which no sanitizer watches.
void store(Slot& slot, const void* value, size_t bytes) {
  if (bytes == 4)
    std::memcpy(slot.bytes, value, 4);
  else if (bytes == 8)
    std::memcpy(slot.bytes, value, 8);
  else
    unseen_copy(slot.bytes, value, bytes);
}

}  // namespace

const char* name_of(Op op) { return kNames[static_cast<int>(op)]; }

const char* file_of(const Where& where) {
  const char* slash = std::strrchr(where.file, '/');
  return slash ? slash + 1 : where.file;
}

void fail(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  current_block().fail(text, arguments);
}

unsigned block_barrier(Op op, bool predicate, Where where) {
  Block& block = current_block();
  Meeting& meeting = block.barrier();
  // CUDA counts threads that have ended as arrived; a kernel that relies on it has usually lost them by mistake.
  if (block.live() != block.threads())
    block.fail("it comes to %s at %s:%d after %u threads of its block have ended", name_of(op), file_of(where),
               where.line, block.threads() - block.live());
  const unsigned side = meeting.side();
  if (meeting.arrived == 0) meeting.votes[side] = 0;
  meeting.votes[side] += predicate;
  tsan_release(meeting.tokens[side]);
  if (block.arrive(meeting, block.threads(), op, where))
    block.complete(meeting);
  else
    block.await(meeting);
  tsan_acquire(meeting.tokens[side]);
  return meeting.votes[side];
}

void warp_barrier(uint32_t mask, Where where) {
  Block& block = current_block();
  require_whole_warp(block, Op::kSyncwarp, mask, where);
  Meeting& meeting = block.warp().barrier;
  const unsigned side = meeting.side();
  tsan_release(meeting.tokens[side]);
  if (block.arrive(meeting, kWarp, Op::kSyncwarp, where))
    block.complete(meeting);
  else
    block.await(meeting);
  tsan_acquire(meeting.tokens[side]);
}

const Slot* warp_exchange(const void* value, size_t bytes, Op op, uint32_t mask, Where where) {
  Block& block = current_block();
  require_whole_warp(block, op, mask, where);
  Warp& warp = block.warp();
  Slot* slots = warp.slots[warp.collective.side()];
  store(slots[block.current().context.lane], value, bytes);
  if (block.arrive(warp.collective, kWarp, op, where))
    block.complete(warp.collective);
  else
    block.await(warp.collective);
  return slots;
}

uint32_t warp_vote(bool predicate, Op op, uint32_t mask, Where where) {
  Block& block = current_block();
  require_whole_warp(block, op, mask, where);
  Meeting& meeting = block.warp().collective;
  unsigned& votes = meeting.votes[meeting.side()];
  if (meeting.arrived == 0) votes = 0;
  votes |= unsigned{predicate} << block.current().context.lane;
  if (block.arrive(meeting, kWarp, op, where))
    block.complete(meeting);
  else
    block.await(meeting);
  return votes;
}

void fence() { current_block().current().fenced = true; }

void release(const void* address) {
  if (current_block().current().fenced) tsan_release(address);
}

void acquire(const void* address) { tsan_acquire(address); }

}  // namespace hostcuda
