// The bfloat16 products of a column tile, and the tile's loop (pass/tile.h) with them. All scores of a panel go to
// memory, where matrix units leave them, so the tile's maximum is known before its first exponential.
#include "cpu/engines/bf16/products.h"
#include "cpu/pass/tile.h"

namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS {
namespace {

// Finite values rounded to bfloat16, ties away from zero; words of two columns.
HWY_INLINE void store_pair(V even, V odd, uint32_t* out) {
  const hn::ScalableTag<uint32_t> d32;
  const auto half = hn::Set(d32, 0x8000);
  const auto low = hn::ShiftRight<16>(hn::Add(hn::BitCast(d32, even), half));
  const auto high = hn::And(hn::Add(hn::BitCast(d32, odd), half), hn::Set(d32, 0xffff0000u));
  hn::Store(hn::Or(low, high), d32, out);
}

int padded_columns(const TileJob& job) { return static_cast<int>(round_up(job.columns, kColumnPadding)); }

struct Bfloat16Products {
  using Element = uint16_t;
  static constexpr int kWidest = FNCE_PRODUCTS::kWidest, kSumDepth = kColumnPadding, kColumnsPerWord = 2;
  static constexpr bool kScoresWait = true;
  static constexpr int group(int) { return 4; }

  template <int NV>
  static HWY_INLINE void multiply_scores(const TileJob& job, const Panel& panel, Prefetcher& prefetcher) {
    FNCE_PRODUCTS::multiply_scores<NV>(job, panel, padded_columns(job), prefetcher);
  }

  template <int MR, int NV>
  static HWY_INLINE void scores(const TileJob& job, const Panel&, int j, V (&s)[MR][NV], Prefetcher&) {
    const float* from = job.raw_scores + int64_t{j} * NV * kLanes;
    FNCE_UNROLL for (int t = 0; t < MR; ++t) FNCE_UNROLL for (int v = 0; v < NV; ++v) s[t][v] =
        hn::Load(df, from + (t * NV + v) * kLanes);
  }

  template <int MR, int NV>
  static HWY_INLINE void store_weights(const V (&p)[MR][NV], int j, const TileJob& job) {
    auto* out = reinterpret_cast<uint32_t*>(job.weights) + int64_t{j} / 2 * NV * kLanes;
    FNCE_UNROLL for (int t = 0; t < MR; t += 2) FNCE_UNROLL for (int v = 0; v < NV; ++v)
        store_pair(p[t][v], p[t + 1][v], out + (t / 2 * NV + v) * kLanes);
  }

  template <int NV>
  static HWY_INLINE void multiply_sums(const TileJob& job, const Panel& panel, int columns, Prefetcher& prefetcher) {
    FNCE_PRODUCTS::multiply_sums<NV>(job, panel, columns, prefetcher);
  }

  static int64_t steps_of_panel(const TileJob& job, int) {
    return FNCE_PRODUCTS::steps_of_panel(job, padded_columns(job));
  }
};

}  // namespace

void enter() { prepare_unit(); }
void leave() { release_unit(); }

void run_tile(const TileJob& job) { run_tile_with<Bfloat16Products>(job); }

}  // namespace fnce::cpu::FNCE_ISA::FNCE_PRODUCTS
