// A fuzz target without a fuzzer, for any compiler: `PROGRAM [--random RUNS SEED] FILE_OR_FOLDER...` runs the target on
// every file, and on so many inputs of random bytes. A finding ends the program.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void run_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(2);
  }
  // A copy of exactly that size, so that reading beyond it is found.
  const std::vector<uint8_t> bytes(text.begin(), text.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

void run_random(uint64_t runs, uint64_t seed) {
  for (uint64_t i = 0; i < runs; ++i) {
    fuzz::Noise noise(seed + i);
    std::vector<uint8_t> bytes(noise.bits() % 200);
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(noise.bits());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t files = 0, runs = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--random" && i + 2 < argc) {
      runs += std::strtoull(argv[i + 1], nullptr, 10);
      run_random(runs, std::strtoull(argv[i + 2], nullptr, 10));
      i += 2;
    } else if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(argv[i])) run_file(entry.path()), ++files;
    } else {
      run_file(argv[i]), ++files;
    }
  }
  std::printf("%" PRIu64 " files, %" PRIu64 " random inputs\n", files, runs);
  return files + runs > 0 ? 0 : 2;
}
