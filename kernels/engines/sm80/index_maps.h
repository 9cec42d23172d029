// Where everything lies: the swizzle of shared tiles and the fragments of ldmatrix and mma.m16n8k16, as functions of
// the lane. tests/cuda/index_maps_test.cpp checks them exhaustively (bijection, bounds, bank conflicts) and against the
// PTX manual.
//
// A tile in shared memory is [rows][d] 16-bit elements in chunks of 8 (16 bytes). Chunk c of row r lies at place
// c ^ (r & 7) of its group of 8: the 8 rows that an ldmatrix phase reads at one chunk so lie in 8 different groups of 4
// banks.
#pragma once
#include "math/hd.h"

namespace fnce::cuda::sm80 {

constexpr int kChunk = 8;

FNCE_HD constexpr int swizzled_chunk(int row, int chunk) { return (chunk & ~7) | ((chunk ^ row) & 7); }

// Element offset of a chunk in a tile of d features.
FNCE_HD constexpr int tile_offset(int row, int chunk, int d) { return row * d + swizzled_chunk(row, chunk) * kChunk; }

// Where half of a float32 piece of 8 elements lies among 16-byte places, of a tile of `pieces` pieces. Neither eight
// lanes that read one half of neighbouring pieces nor eight that write both halves of four fall on the same banks.
FNCE_HD constexpr int raw_place(int piece, int half, int pieces) { return half * pieces + (piece ^ (half << 2)); }
// Which half piece a lane copies in turn `turn` of 2, when the warp's 32 pieces start at `first`: neighbouring lanes
// ask for neighbouring 16 bytes of a row, so that whole sectors of 32 bytes are asked for once.
struct HalfPiece {
  int piece, half;
};
FNCE_HD constexpr HalfPiece copied_half(int first, int turn, int lane) {
  return {first + 16 * turn + (lane >> 1), lane & 1};
}

// The row and chunk whose address a lane gives to ldmatrix.x4, inside a 16x16 piece (16 rows, 2 chunks).
struct RowChunk {
  int row, chunk;
};
// Anchors as operand A of the scores: matrices (rows 0-7 | 8-15) x (features 0-7 | 8-15), rows first.
FNCE_HD constexpr RowChunk anchor_lane(int lane) { return {lane & 15, lane >> 4}; }
// The same in registers: row and first column, in the piece, of the pair of elements in register r of operand A.
FNCE_HD constexpr int anchor_row(int lane, int r) { return (lane >> 2) + 8 * (r & 1); }
FNCE_HD constexpr int anchor_column(int lane, int r) { return 2 * (lane & 3) + 8 * (r >> 1); }
// Columns as operand B of the scores, columns x features as stored: registers 0, 1 are columns 0-7, registers 2, 3
// columns 8-15.
FNCE_HD constexpr RowChunk score_lane(int lane) { return {(lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1}; }
// Columns as operand B of the sums, transposed on the way: registers 0, 1 are features 0-7, registers 2, 3 features
// 8-15.
FNCE_HD constexpr RowChunk sum_lane(int lane) { return {lane & 15, lane >> 4}; }

// Accumulator register r of an m16n8 tile: row and column.
FNCE_HD constexpr int accumulator_row(int lane, int r) { return (lane >> 2) + 8 * (r >> 1); }
FNCE_HD constexpr int accumulator_column(int lane, int r) { return 2 * (lane & 3) + (r & 1); }

// A lane's scores of one row against 16 columns, in two m16n8 tiles, form a quad: the cycle of C through positions
// p, p+1, p+8, p+9 (math/permutation.h). Position of member v of the quad.
FNCE_HD constexpr int quad_position(int lane, int v) { return accumulator_column(lane, v & 1) + 8 * (v >> 1); }
// Members of a lane's quad among the first `limit` of 16 positions: always the first ones.
FNCE_HD constexpr int quad_count(int lane, int limit) {
  int count = 0;
  for (int v = 0; v < 4; ++v) count += quad_position(lane, v) < limit;
  return count;
}

}  // namespace fnce::cuda::sm80
