// The conformance program: is the device what the host models say it is? A job is one launch of one check kernel of
// checks.cuh, with its inputs. The device runs it (device_side.cu), the harness of tests/hostcuda runs it
// (model_side.cpp), and expected.cpp works out from the documented layouts alone what must come out.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "math/hd.h"

namespace fnce::conformance {

using Words = std::vector<uint32_t>;

enum class Check {
  kCpAsync,        // 16-byte copies, zero fill, wait_group
  kLdmatrix,       // which lane's address gives which row, where every element goes
  kLdmatrixTrans,  //
  kProducts,       // fragments of mma.m16n8k16, chains of it
  kMap,            // one function over many words: MapMode
  kDraws,          // checksums of random draws: DrawMode
  kReduceWarps,    // cub::WarpReduce, as kernels/rows/warp.cuh calls it
  kReduceBlocks,   // cub::BlockReduce, as kernels/rows/reduce.cuh does
  kPlaces,         // threadIdx.x and blockIdx.xy, read again
  kSweep,          // all 2^32 floats, conversion of src/math/half.h against the instruction's: SweepMode
};

enum class ProductMode : uint32_t { kHalf, kBfloat, kHalfSplit };
enum class MapMode : uint32_t {
  kExp2,        // float -> float
  kPackHalf,    // two floats -> two float16
  kPackBfloat,  //
  kUnpackHalf,  // two float16 -> two floats
  kToHalf,      // those of src/math/half.h: float -> float16
  kFromHalf,    // float16 -> float
  kToBfloat,    //
  kFromBfloat,  //
};
enum class DrawMode : uint32_t { kPhilox, kLambdaRow, kLambdaElement, kSigma, kSigmaInverse, kPermute };
enum class SweepMode : uint32_t { kHalf, kBfloat };

constexpr unsigned kPlaceBlocks = 3, kPlaceThreads = 96;  // of kPlaces, in x and y

// What a check kernel is told.
struct Params {
  const uint32_t *x, *y;
  uint32_t* out;
  uint32_t mode;  // one of the enums above
  // kMap: words of x; kDraws: threads; kSweep: threads; kProducts: tiles of 16 x 8; kReduceWarps: warps; kReduceBlocks:
  // blocks
  uint32_t count;
  uint32_t each;  // kDraws: samples a thread; kProducts: the depth, a multiple of 16
  uint64_t seed, offset;
  uint32_t stream;  // kDraws: fnce::Stream
  uint32_t size;    // kDraws: of the permutation, or D of lambda per element
  float alpha, shift;
};

// What kReduceWarps combines beside floats: of more words than one exchange has, and neither commutative nor
// associative, so that every step of the tree shows.
struct Span {
  uint32_t first, last, count, twice, thrice, hash;
};
// Results of a warp: the sum of its words as floats, and their span; of each thread of a block: sums and the largest.
constexpr uint32_t kWarpWords = 1 + sizeof(Span) / 4, kBlockWords = 5;
FNCE_HD Span joined(const Span& x, const Span& y) {
  const uint32_t count = x.count + y.count;
  return {x.first, y.last, count, 2 * count, 3 * count, x.hash * 0x01000193u + (y.hash ^ y.hash >> 7)};
}
FNCE_HD Span span_of(uint32_t word) { return {word, word, 1, 2, 3, word}; }

// How result words are compared: NaNs are equal to each other whatever their payload.
enum class Format { kWords, kHalves, kBfloats };

struct Job {
  std::string name;
  Check check;
  Params params = {};  // pointers are set by the side that runs it
  Words x = {}, y = {};
  size_t results = 0;  // words of out
  Format format = Format::kWords;
  bool on_model = true;  // false: too large for the harness
  Words want = {};       // what must come out, to the bit; or, where it is empty, within `bound` of
  std::vector<double> exact = {}, bound = {};
  std::vector<double> unit =
      {};  // what errors are reported as multiples of: a unit in the last place, the sum of all |a b|
  std::vector<float> single = {};  // products: the same sum in float32, term by term
};

// True if a job is about instructions that devices have from compute capability 8.0 on, and that only
// kernels/engines/sm80 uses.
inline bool needs_sm80(const Job& job) {
  const auto mode = static_cast<MapMode>(job.params.mode);
  const bool packs = job.check == Check::kMap && (mode == MapMode::kPackHalf || mode == MapMode::kPackBfloat);
  return packs || (job.check != Check::kMap && job.check != Check::kDraws && job.check != Check::kReduceWarps &&
                   job.check != Check::kReduceBlocks && job.check != Check::kPlaces);
}

// expected.cpp: all jobs, with what must come out. `large`: those that only a device can run in reasonable time as
// well.
std::vector<Job> all_jobs(bool large);

// Runs a job and returns its result words; throws std::runtime_error with the device's sentence.
Words run_on_device(const Job& job);

struct DeviceName {
  std::string name;    // empty: none
  std::string reason;  // why there is none
  int major = 0;       // of its compute capability
};
DeviceName find_device();

}  // namespace fnce::conformance

// Runs a job on the harness and writes its result words; not 0 where the harness found a fault, which `message` then
// says. In a shared library of its own: the harness has a CUDA runtime's names as well.
extern "C" __attribute__((visibility("default"))) int fnce_conformance_model(const fnce::conformance::Job* job,
                                                                             uint32_t* results, char* message,
                                                                             size_t size) noexcept;
