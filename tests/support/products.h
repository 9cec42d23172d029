// Which arithmetic a plan has chosen, by its own words, and what follows from it for the oracle.
#pragma once

#include <string>

#include "oracle/oracle.h"
#include "support/problem.h"

namespace support {

// Of a plan's description, which must name exactly one.
oracle::Products products_of(const std::string& description);
oracle::Products products_of(const Case& c);

// Sets products, what is mixed as rows, and whether float16 holds the negatives. `inputs` has everything else.
void choose_products(const Case& c, oracle::Inputs& inputs);

}  // namespace support
