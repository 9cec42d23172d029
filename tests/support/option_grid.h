// The grid of options that a call can have: sizes around the edges of tiles, types, precision, mixing and its sources,
// columns, anchors, reductions, statistics, outputs, where numbers and arrays lie. A covering array of about a hundred
// cases has every pair of choices that can occur.
#pragma once

#include <cstddef>
#include <vector>

#include "support/pairwise.h"
#include "support/problem.h"

namespace support {

// A grid is that of the queue alone, or with columns beyond it, equations (13)-(16), whose parameters stand behind the
// others.
enum class Grid { kQueue, kBeyond };

const std::vector<Parameter>& grid_parameters(Grid grid = Grid::kQueue);

// True if the header allows what is chosen so far, and sizes stay small.
bool grid_allows(const Choice& row);

const CoveringArray& option_grid(Grid grid = Grid::kQueue);

// Row `index` of the grid as a case with inputs; its label begins with its seed.
// With a margin, some score may lie close to it: support/margin.h.
Case grid_case(size_t index, Grid grid = Grid::kQueue);

}  // namespace support
