// A kernel as the host sees it. Kernels are compiled by nvcc (or, for tests/hostcuda, as C++); whatever hands them out
// or launches them (launch.h) is ordinary C++ and includes this.
#pragma once
#include <cstdint>

#include "kernels/contract/params.h"

namespace fnce::cuda {

struct Grid {
  unsigned x = 1, y = 1;
};

// A kernel of one struct of parameters, with what a launch of it needs.
template <class Params>
struct Kernel {
  void (*function)(Params);
  const char* name;
  int threads;
  int64_t shared_bytes;  // dynamic shared memory
};

}  // namespace fnce::cuda
