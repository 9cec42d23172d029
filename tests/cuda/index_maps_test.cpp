// kernels/engines/sm80/index_maps.h and tile.h, exhaustively: the swizzle, bank conflicts, fragments against the tables
// of the PTX ISA (written out here once more), quads against the cycles of C, and tiles against the limits of a block.
#include "kernels/engines/sm80/index_maps.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include "kernels/engines/sm80/shared_plan.h"
#include "math/permutation.h"
#include "support/catch.h"

namespace {

using namespace fnce::cuda;
using namespace fnce::cuda::sm80;

// Functions that are always inlined have no address.
RowChunk anchors(int lane) { return anchor_lane(lane); }
RowChunk scores(int lane) { return score_lane(lane); }
RowChunk sums(int lane) { return sum_lane(lane); }

constexpr int kWidths[] = {64, 128, 256, 512};
constexpr Operand kOperands[] = {Operand::kHalf, Operand::kBfloat, Operand::kHalfSplit, Operand::kHalfFast};
constexpr int kLanes = 32;

// ---- The PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix" -----------------------

struct Element {
  int row, column;
  bool operator==(const Element&) const = default;
};

// Elements a0..a7, b0..b3, c0..c3 of a lane. B is [k][n].
Element element_of_a(int lane, int i) {
  const int group = lane / 4, in_group = lane % 4;
  const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
  const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
  return {row, column};
}
Element element_of_b(int lane, int i) {
  const int group = lane / 4, in_group = lane % 4;
  return {i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8, group};
}
Element element_of_c(int lane, int i) {
  const int group = lane / 4, in_group = lane % 4;
  return {i < 2 ? group : group + 8, in_group * 2 + (i & 1)};
}

// ldmatrix.x4 on a 16x16 piece: which element of the piece a lane finds in half `half` of register `matrix`, when lane
// l gives the address of row lane_of(l).row from element 8 * lane_of(l).chunk on.
template <class LaneOf>
Element loaded(LaneOf lane_of, bool transposed, int lane, int matrix, int half) {
  const int row = transposed ? 2 * (lane % 4) + half : lane / 4;
  const int column = transposed ? lane / 4 : 2 * (lane % 4) + half;
  const RowChunk address = lane_of(8 * matrix + row);
  return {address.row, 8 * address.chunk + column};
}

// ---- Banks ----------------------------------------------------------------------------------------------------------

// Shared memory serves 8 lanes of 16 bytes at a time: the most that fall on one group of four banks.
template <class OffsetOf>
int worst_conflict(OffsetOf element_offset) {
  int worst = 0;
  for (int phase = 0; phase < kLanes / 8; ++phase) {
    std::array<int, 8> hits = {};
    for (int i = 0; i < 8; ++i)
      worst = std::max(worst, ++hits[static_cast<size_t>(element_offset(8 * phase + i) / 8 % 8)]);
  }
  return worst;
}

// ---- Tiles ----------------------------------------------------------------------------------------------------------

struct NamedTile {
  Operand operand;
  int index;
  Tile tile;
};

std::vector<NamedTile> all_tiles() {
  std::vector<NamedTile> all;
  for (const Operand operand : kOperands)
    for (int i = 0; i < tiles_of(operand).count; ++i) all.push_back({operand, i, tile_of(operand, i)});
  return all;
}

}  // namespace

TEST_CASE("sm80 swizzle: a bijection of the chunks of a tile, 16-byte aligned and inside it") {
  for (const int d : kWidths) {
    constexpr int kRows = 128;
    std::vector<int> hits(static_cast<size_t>(kRows * d / kChunk), 0);
    for (int row = 0; row < kRows; ++row)
      for (int chunk = 0; chunk < d / kChunk; ++chunk) {
        const int offset = tile_offset(row, chunk, d);
        REQUIRE(offset % kChunk == 0);
        REQUIRE(offset >= row * d);
        REQUIRE(offset + kChunk <= (row + 1) * d);
        ++hits[static_cast<size_t>(offset / kChunk)];
      }
    REQUIRE(std::all_of(hits.begin(), hits.end(), [](int count) { return count == 1; }));
  }
}

TEST_CASE("sm80 ldmatrix: no phase has a bank conflict") {
  for (const int d : kWidths)
    for (int row = 0; row < 128; row += 16)
      for (int k = 0; k < d / 16; ++k)
        for (const auto lane_of : {anchors, scores, sums}) {
          const auto offset = [&](int lane) {
            const RowChunk at = lane_of(lane);
            return tile_offset(row + at.row, 2 * k + at.chunk, d);
          };
          REQUIRE(worst_conflict(offset) == 1);
        }
}

TEST_CASE("sm80 copies: the pieces that a warp writes into a tile have no bank conflict") {
  for (const NamedTile& t : all_tiles()) {
    const int chunks = t.tile.d / kChunk, pieces = std::max(t.tile.columns, t.tile.rows()) * chunks;
    for (int first = 0; first < pieces; first += kLanes) {
      const auto offset = [&](int lane) {
        return tile_offset((first + lane) / chunks, (first + lane) % chunks, t.tile.d);
      };
      REQUIRE(worst_conflict(offset) == 1);
    }
  }
}

TEST_CASE("sm80 raw pieces: places of their own, no bank conflict, whole sectors") {
  for (const NamedTile& t : all_tiles()) {
    if (!converts(t.operand)) continue;
    const int pieces = t.tile.columns * t.tile.d / kChunk;
    std::set<int> places, copied;
    for (int first = 0; first < pieces; first += kLanes) {
      for (int half = 0; half < 2; ++half) {
        // In elements of 2 bytes, as worst_conflict counts.
        const auto reading = [&](int lane) { return raw_place(first + lane, half, pieces) * kChunk; };
        REQUIRE(worst_conflict(reading) == 1);
        for (int lane = 0; lane < kLanes; ++lane) places.insert(raw_place(first + lane, half, pieces));
      }
      for (int turn = 0; turn < 2; ++turn) {
        const auto at = [&](int lane) { return copied_half(first, turn, lane); };
        const auto writing = [&](int lane) { return raw_place(at(lane).piece, at(lane).half, pieces) * kChunk; };
        REQUIRE(worst_conflict(writing) == 1);
        for (int lane = 0; lane < kLanes; ++lane) {
          const int half_piece = 2 * at(lane).piece + at(lane).half;
          // Pieces of this warp; neighbours of a row.
          REQUIRE((at(lane).piece >= first && at(lane).piece < first + kLanes));
          REQUIRE((lane % 2 == 0 || half_piece == 2 * at(lane - 1).piece + at(lane - 1).half + 1));
          copied.insert(half_piece);
        }
      }
    }
    REQUIRE(
        (static_cast<int>(places.size()) == 2 * pieces && *places.begin() == 0 && *places.rbegin() == 2 * pieces - 1));
    REQUIRE(static_cast<int>(copied.size()) == 2 * pieces);
  }
}

TEST_CASE("sm80 fragments: what ldmatrix loads is what mma takes") {
  for (int lane = 0; lane < kLanes; ++lane)
    for (int reg = 0; reg < 4; ++reg)
      for (int half = 0; half < 2; ++half) {
        const int i = 2 * reg + half;
        // Anchors: A is rows x features.
        REQUIRE(loaded(anchors, false, lane, reg, half) == element_of_a(lane, i));
        REQUIRE(Element{anchor_row(lane, reg), anchor_column(lane, reg) + half} == element_of_a(lane, i));
        // Columns for the scores: B is features x columns, of columns 0-7 and then 8-15, and the tile holds columns x
        // features.
        const Element b = element_of_b(lane, i % 4);
        REQUIRE(loaded(scores, false, lane, reg, half) == Element{b.column + 8 * (reg / 2), b.row});
        // Columns for the sums: B is columns x features, of features 0-7 and then 8-15.
        REQUIRE(loaded(sums, true, lane, reg, half) == Element{b.row, b.column + 8 * (reg / 2)});
      }
}

TEST_CASE("sm80 fragments: accumulators, and weights as operand A of the sums") {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int r = 0; r < 4; ++r)
      REQUIRE(Element{accumulator_row(lane, r), accumulator_column(lane, r)} == element_of_c(lane, r));
    // Members 2 * half and 2 * half + 1 of the quad of register half h become register 2 * half + h of A.
    for (int half = 0; half < 2; ++half)
      for (int h = 0; h < 2; ++h)
        for (int v = 0; v < 2; ++v) {
          const Element a = element_of_a(lane, 2 * (2 * half + h) + v);
          REQUIRE(a.row == accumulator_row(lane, 2 * h));
          REQUIRE(a.column == quad_position(lane, 2 * half + v));
          // They are the scores of that row: member v of a quad is register 2 h + (v & 1) of m16n8 tile v / 2.
          REQUIRE(a.row == accumulator_row(lane, 2 * h + v));
          REQUIRE(a.column == 8 * half + accumulator_column(lane, 2 * h + v));
        }
  }
}

TEST_CASE("sm80 quads: the four lanes of a row share its 16 positions, and a quad is a cycle of C") {
  for (int row = 0; row < 8; ++row) {
    std::set<int> positions;
    for (int lane = 4 * row; lane < 4 * row + 4; ++lane) {
      REQUIRE(accumulator_row(lane, 0) == row);
      for (int v = 0; v < 4; ++v) {
        const int position = quad_position(lane, v);
        positions.insert(position);
        REQUIRE(fnce::cycle_next_in_16(static_cast<uint32_t>(position)) ==
                static_cast<uint32_t>(quad_position(lane, (v + 1) % 4)));
      }
    }
    REQUIRE(positions.size() == 16);
    REQUIRE(*positions.begin() == 0);
    REQUIRE(*positions.rbegin() == 15);
  }
}

TEST_CASE("sm80 quads: a cut-off group leaves the first members, which form the cycle that C makes of them") {
  for (int lane = 0; lane < kLanes; ++lane)
    for (int limit = -64; limit <= 64; ++limit) {
      const int count = quad_count(lane, limit);
      REQUIRE(count >= 0);
      REQUIRE(count <= 4);
      for (int v = 0; v < 4; ++v) REQUIRE((quad_position(lane, v) < limit) == (v < count));
      if (limit > 16) continue;
      for (int v = 0; v < count; ++v) {
        const auto position = static_cast<uint32_t>(quad_position(lane, v)), size = static_cast<uint32_t>(limit);
        // As mix_quad takes the partner, and mix_quad_transposed the member before.
        const int next = v + 1 < count ? v + 1 : 0, before = v > 0 ? v - 1 : count - 1;
        REQUIRE(fnce::cycle_next(position, size) == static_cast<uint32_t>(quad_position(lane, next)));
        REQUIRE(fnce::cycle_previous(position, size) == static_cast<uint32_t>(quad_position(lane, before)));
      }
    }
}

TEST_CASE("sm80 tiles: whole warps and groups, within the limits of a block") {
  for (const NamedTile& t : all_tiles()) {
    const Tile& tile = t.tile;
    CAPTURE(static_cast<int>(t.operand), t.index);
    CHECK(tile.threads() <= 1024);
    CHECK(tile.threads() >= tile.columns);  // a thread per column fetches its row
    CHECK(tile.columns % (16 * tile.column_warps) == 0);
    CHECK((tile.column_warps == 1 || tile.feature_warps == 1));
    // A warp's features are whole widths of the swizzle.
    CHECK(tile.d % (64 * tile.feature_warps) == 0);
    CHECK(tile.stages >= (converts(t.operand) ? 1 : 2));
    CHECK(shared_bytes(t.operand, tile) <= 99 * 1024);
    const SharedPlan plan = shared_plan(t.operand, tile);
    // References and l of every row half, four lanes each; the accumulators of one column warp's rows behind them.
    CHECK(plan.scalars.bytes == (tile.column_warps > 1 ? tile.rows() * 2 * 4 * 4 : 0));
    CHECK(plan.sums.bytes == (tile.column_warps > 1 ? tile.rows() * tile.d * 4 : 0));
    // 16 columns of 16 rows are eight floats of each lane.
    CHECK(plan.partial_scores.bytes ==
          (tile.divides_features() ? tile.row_warps * tile.feature_warps * tile.mi * (tile.columns / 16) * 8 * 32 * 4
                                   : 0));
    // Walks of the pieces of a tile come out even for every thread, or the copies of a block would not be whole warps'.
    CHECK(tile.columns * (tile.d / kChunk) % 32 == 0);
  }
}

TEST_CASE("sm80 shared memory: pieces that are used together do not overlap, and lie on whole 16 bytes") {
  for (const NamedTile& t : all_tiles()) {
    const SharedPlan plan = shared_plan(t.operand, t.tile);
    const std::vector<Piece> in_loop = {plan.anchors, plan.stages, plan.raw,  plan.partial_scores, plan.column_rows,
                                        plan.lambdas, plan.scale,  plan.unit, plan.thresholds};
    int end = 0;
    for (const auto& pieces : {in_loop, {plan.scalars, plan.sums}, {plan.statistics}, {plan.extents}}) {
      int behind = 0;
      for (const Piece& piece : pieces) {
        CAPTURE(static_cast<int>(t.operand), t.index, piece.offset, piece.bytes);
        CHECK((piece.offset == behind && piece.offset % 16 == 0 && piece.bytes >= 0));
        behind = piece.end();
      }
      end = std::max(end, behind);
    }
    CHECK(plan.bytes == end);
    CHECK((plan.unit.bytes > 0) == t.tile.statistics);
    CHECK((plan.statistics.bytes > 0) == t.tile.statistics);
    CHECK((plan.raw.bytes > 0) == converts(t.operand));
  }
}

TEST_CASE("sm80 tiles: what is in use at one time lies in different slots") {
  for (const NamedTile& t : all_tiles()) {
    const int ahead = tiles_ahead(t.operand, t.tile), slots = info_slots(t.operand, t.tile);
    for (int step = 0; step < 3 * slots; ++step) {
      // Rows and lambdas: of the tile computed on, those on their way, and the one that is written.
      std::set<int> used;
      for (int i = step; i <= step + ahead + 1; ++i) used.insert(i % slots);
      REQUIRE(static_cast<int>(used.size()) == ahead + 2);
      if (converts(t.operand)) continue;
      // Stages: of the tile computed on and those on their way.
      used.clear();
      for (int i = step; i <= step + ahead; ++i) used.insert(i % t.tile.stages);
      REQUIRE(static_cast<int>(used.size()) == ahead + 1);
    }
  }
}

TEST_CASE("sm80 tiles: every number of features has one, no wider than it must be, and its kernel is compiled") {
  constexpr int64_t kLeast = 99 << 10;  // shared memory of a block on any device from 8.0 on
  for (const Operand operand : kOperands)
    for (int64_t d = 1; d <= kMaxFeatures; ++d)
      for (const bool statistics : {false, true}) {
        int count = 0;
        for (int index = 0; index < tiles_of(operand).count; ++index) {
          if (!serves(operand, index, d, statistics, kLeast)) continue;
          ++count;
          const Tile tile = tile_of(operand, index);
          if (tile.d < d || (tile.d > 64 && tile.d >= 2 * d)) FAIL("width " << tile.d << " for d " << d);
          if (statistics && !has_statistics(operand, index)) FAIL("no statistics for d " << d);
          if (serves(operand, index, d, statistics, shared_bytes(operand, tile) - 1)) FAIL("more memory than there is");
        }
        if (count == 0) FAIL("no tile for d " << d);
      }
  SUCCEED();
}

TEST_CASE("sm80 tiles: one tile of each width has statistics") {
  for (const Operand operand : kOperands)
    for (int d = 64; d <= kMaxFeatures; d *= 2) {
      int count = 0;
      for (int i = 0; i < tiles_of(operand).count; ++i)
        count += tile_of(operand, i).d == d && has_statistics(operand, i);
      CHECK(count == 1);
    }
}
