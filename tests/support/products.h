// Which arithmetic a plan has chosen, and what follows from it for the oracle.
#pragma once

#include <cstdint>

#include "oracle/oracle.h"
#include "support/problem.h"

namespace support {

// What a code FNCE_PRODUCTS_* stands for; throws std::runtime_error for a code that is none.
oracle::Products products_of(int32_t code);
oracle::Products products_of(const Case& c);

// Sets products, what is mixed as rows, and whether float16 holds the negatives. `inputs` has everything else.
void choose_products(const Case& c, oracle::Inputs& inputs);

}  // namespace support
