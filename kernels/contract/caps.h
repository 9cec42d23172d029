// What plans need to know of a device: plain numbers, so that tests can invent devices.
#pragma once
#include <cstdint>
#include <string>

namespace fnce::cuda {

struct DeviceCaps {
  int cc_major, cc_minor;  // compute capability
  int sm_count;
  int64_t shared_bytes;  // shared memory that one block can be given
  std::string name;

  int arch() const { return 10 * cc_major + cc_minor; }
  std::string cc() const { return std::to_string(cc_major) + "." + std::to_string(cc_minor); }
};

}  // namespace fnce::cuda
