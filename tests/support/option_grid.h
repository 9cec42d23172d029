// The grid of options that a call can have: sizes around the edges of tiles, types, precision, mixing and its sources,
// columns, anchors, reductions, statistics, outputs, where numbers and arrays lie. A covering array of about a hundred
// cases has every pair of choices that can occur.
#pragma once

#include <cstddef>
#include <vector>

#include "support/pairwise.h"
#include "support/problem.h"

namespace support {

const std::vector<Parameter>& grid_parameters();

// True if the header allows what is chosen so far, and sizes stay small.
bool grid_allows(const Choice& row);

const CoveringArray& option_grid();

// Row `index` of the grid as a case with inputs; its label begins with its seed.
Case grid_case(size_t index);

}  // namespace support
