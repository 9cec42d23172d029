// Prefetching the rows of the next column tile while this one is computed.
#pragma once
#include "cpu/simd/simd.h"

namespace fnce::cpu::FNCE_ISA {
namespace {

// Spreads the prefetches of the next tile's rows evenly over the micro tiles of this one, up to 512 bytes at a time, so
// that lines come neither late nor so early that they are gone again.
class Prefetcher {
 public:
  Prefetcher(const TileJob& job, int64_t steps)
      : base_(reinterpret_cast<const char*>(job.queue)),
        rows_(job.next_rows),
        count_(job.next_count),
        row_bytes_(job.row_bytes),
        pieces_((row_bytes_ + kPiece - 1) / kPiece),
        due_per_step_(count_ * pieces_),
        steps_(steps > 0 ? steps : 1) {}

  HWY_INLINE void step() {
    credit_ += due_per_step_;
    if (HWY_UNLIKELY(credit_ >= steps_) && row_ < count_) fetch_piece();
  }

 private:
  static constexpr int64_t kLine = 64, kPiece = 8 * kLine;

  HWY_INLINE void fetch_piece() {
    credit_ -= steps_;
    if (piece_ == 0 && row_ % 32 == 0) touch_ahead();
    const char* row = base_ + rows_[row_] * row_bytes_;
    const char* p = row + piece_ * kPiece;
    const int64_t left = row_bytes_ - piece_ * kPiece;
    if (HWY_LIKELY(left >= kPiece)) {
      for (int64_t line = 0; line < kPiece; line += kLine) __builtin_prefetch(p + line, 0, 2);
    } else {
      for (int64_t line = 0; line < left; line += kLine) __builtin_prefetch(p + line, 0, 2);
    }
    if (++piece_ < pieces_) return;
    // A row that does not start on a line ends on one more.
    __builtin_prefetch(row + row_bytes_ - 1, 0, 2);
    piece_ = 0;
    ++row_;
  }

  // First lines of the next 32 random rows: their page walks overlap.
  HWY_INLINE void touch_ahead() {
    for (int64_t i = row_; i < row_ + 32 && i < count_; ++i) __builtin_prefetch(base_ + rows_[i] * row_bytes_, 0, 2);
  }

  const char* base_;
  const int32_t* rows_;
  int64_t count_, row_bytes_, pieces_, due_per_step_, steps_;
  int64_t row_ = 0, piece_ = 0, credit_ = 0;
};

}  // namespace
}  // namespace fnce::cpu::FNCE_ISA
