// All jobs of the conformance program, with what must come out: from matrices and the documented layouts, by other code
// than the kernels and models are made of. Data movers carry distinct 16-bit patterns, so that any misplaced element
// shows; products carry integers, whose sums are exact in any order, or normal numbers with a bound.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "gpu/draws.h"

namespace fnce::conformance {
namespace {

constexpr int kHalfBits = 11, kBfloatBits = 8;  // of the significand

// To nearest, ties to even, by way of an exact double; as the bits of the type. Significand of `bits` bits.
uint16_t rounded(float value, int bits) {
  const int exponent_bits = 16 - bits, bias = (1 << (exponent_bits - 1)) - 1;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0,
                 top = static_cast<uint16_t>(((1 << exponent_bits) - 1) << (bits - 1));
  if (std::isnan(value)) return static_cast<uint16_t>(top | 1u << (bits - 2));
  if (value == 0 || std::isinf(value)) return static_cast<uint16_t>(sign | (value == 0 ? 0 : top));
  int exponent;
  std::frexp(static_cast<double>(value), &exponent);
  const int unit = std::max(exponent - bits, 2 - bias - bits);  // power of two that the result is a multiple of
  const double multiple = std::nearbyint(std::ldexp(std::fabs(static_cast<double>(value)), -unit));
  // The multiple's leading bit carries into the exponent's field by itself.
  const int64_t field = int64_t{unit + bits - 2 + bias} << (bits - 1);
  const int64_t result = static_cast<int64_t>(multiple) + field;
  return static_cast<uint16_t>(sign | std::min<int64_t>(result, top));
}

float value_of(uint16_t word, int bits) {
  const int exponent_bits = 16 - bits, bias = (1 << (exponent_bits - 1)) - 1,
            field = word >> (bits - 1) & ((1 << exponent_bits) - 1);
  const int fraction = word & ((1 << (bits - 1)) - 1);
  double value;
  if (field == (1 << exponent_bits) - 1)
    value = fraction ? NAN : INFINITY;
  else if (field == 0)
    value = std::ldexp(fraction, 2 - bias - bits);
  else
    value = std::ldexp(fraction + (1 << (bits - 1)), field - bias - bits + 1);
  return static_cast<float>(word & 0x8000 ? -value : value);
}

uint32_t pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

uint16_t half_of(const Words& words, size_t i) { return static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)); }
void set_half(Words& words, size_t i, uint16_t value) {
  words[i / 2] = (words[i / 2] & ~(0xffffu << (i % 2 * 16))) | static_cast<uint32_t>(value) << (i % 2 * 16);
}

Words numbered(size_t halves) {
  Words words(halves / 2);
  for (size_t i = 0; i < halves; ++i) set_half(words, i, static_cast<uint16_t>(i + 1));
  return words;
}

Job copies_job() {
  Job job{"cp.async 16 bytes, zero fill, groups", Check::kCpAsync};
  job.x = numbered(512);
  job.results = 288;
  job.want.assign(288, 0);
  for (size_t piece = 0; piece < 64; ++piece)
    for (size_t e = 0; e < 8; ++e)
      set_half(job.want, (piece ^ 5) * 8 + e, piece % 3 ? half_of(job.x, piece * 7 % 64 * 8 + e) : uint16_t{0});
  for (size_t lane = 0; lane < 32; ++lane) job.want[256 + lane] = job.want[(lane ^ 5) * 4];
  return job;
}

Job matrices_job(bool trans) {
  Job job{trans ? "ldmatrix.x4.trans" : "ldmatrix.x4", trans ? Check::kLdmatrixTrans : Check::kLdmatrix};
  job.x = numbered(256);
  job.results = 128;
  job.want.assign(128, 0);
  for (size_t lane = 0; lane < 32; ++lane)
    for (size_t e = 0; e < 8; ++e) {  // register e / 2, half e % 2
      size_t row = lane / 4, column = lane % 4 * 2 + e % 2;
      if (trans) std::swap(row, column);
      set_half(job.want, lane * 8 + e, half_of(job.x, ((e / 2 * 8 + row) * 5 + 3) % 32 * 8 + column));
    }
  return job;
}

// kWeights: A is positive, as softmax weights are. kOneSign: both are, so that errors of one sign add up.
enum class Numbers { kIntegers, kNormal, kWeights, kOneSign };

// Fills A and B of one tile as float32 values and as 16-bit planes at the end of x and y.
struct Tile {
  std::vector<float> a, b;  // [16][depth], [8][depth]
};

Tile add_tile(Job& job, ProductMode mode, Numbers numbers, std::mt19937& random) {
  const size_t depth = job.params.each;
  const int bits = mode == ProductMode::kBfloat ? kBfloatBits : kHalfBits;
  std::normal_distribution<float> normal;
  Tile tile{std::vector<float>(16 * depth), std::vector<float>(8 * depth)};
  const auto fill = [&](std::vector<float>& values, Words& words, bool positive) {
    const size_t at = words.size() * 2;
    const bool split = mode == ProductMode::kHalfSplit;
    words.resize(words.size() + values.size() / 2 * (split ? 2 : 1));
    for (size_t i = 0; i < values.size(); ++i) {
      float v = numbers == Numbers::kIntegers ? static_cast<float>(random() % 31) - 15 : normal(random);
      if (positive) v = std::fabs(v);
      const uint16_t high = rounded(v, bits);
      const float kept = value_of(high, bits);
      set_half(words, at + i, high);
      if (split) {
        const uint16_t low = rounded(numbers == Numbers::kIntegers ? v - 1 : v - kept, bits);
        set_half(words, at + values.size() + i, low);
      }
      values[i] = split ? v : kept;
    }
  };
  fill(tile.a, job.x, numbers == Numbers::kWeights || numbers == Numbers::kOneSign);
  fill(tile.b, job.y, numbers == Numbers::kOneSign);
  return tile;
}

// Sums of one tile: exact, of magnitudes, and in float32; layout of the D fragment.
void add_sums(Job& job, const Tile& tile, ProductMode mode, Numbers numbers, const std::vector<float>& start) {
  const size_t depth = job.params.each;
  // Integers: the lower part is one less than the upper, of both operands.
  const bool integer_split = mode == ProductMode::kHalfSplit && numbers == Numbers::kIntegers;
  for (size_t i = 0; i < 128; ++i) {
    const size_t row = i / 16 + i % 4 / 2 * 8, column = i / 4 % 4 * 2 + i % 2;
    double exact = start[row * 8 + column], magnitude = std::fabs(exact);
    float single = start[row * 8 + column];
    for (size_t k = 0; k < depth; ++k) {
      const float a = tile.a[row * depth + k], b = tile.b[column * depth + k];
      const double product = static_cast<double>(a) * b;
      exact += integer_split ? product + a * (b - 1.0) + (a - 1.0) * b : product;
      magnitude += std::fabs(product);
      single += a * b;
    }
    job.exact.push_back(exact);
    job.unit.push_back(magnitude);
    job.single.push_back(single);
  }
}

Job products_job(const std::string& name, ProductMode mode, Numbers numbers, uint32_t depth, uint32_t tiles) {
  Job job{name, Check::kProducts};
  std::mt19937 random(7);
  job.params.mode = static_cast<uint32_t>(mode);
  job.params.count = tiles;
  job.params.each = depth;
  job.results = size_t{tiles} * 128;
  std::vector<float> start(128);
  if (numbers == Numbers::kIntegers)
    for (float& value : start) value = static_cast<float>(random() % 31) - 15;
  for (uint32_t tile = 0; tile < tiles; ++tile)
    add_sums(job, add_tile(job, mode, numbers, random), mode, numbers, start);
  for (const float value : start) job.y.push_back(float_bits(value));
  if (numbers == Numbers::kIntegers) {
    for (const double value : job.exact) job.want.push_back(float_bits(static_cast<float>(value)));
    return job;
  }
  // Each instruction may lose two units of the largest partial sum, which truncation can; the split leaves out the
  // product of the lower parts and what 22 bits do not hold.
  const double instructions = depth / 16.0 * (mode == ProductMode::kHalfSplit ? 3 : 1);
  for (const double magnitude : job.unit) job.bound.push_back((instructions * 0x1p-22 + 0x1p-20) * magnitude);
  return job;
}

// Words that rounding is hard for: the middle of every two neighbours of the 16-bit type, and the floats beside it;
// some of any kind; the special ones.
Words floats_to_round(int bits) {
  Words words;
  for (uint32_t word = 0; word < 0x7fffu; word += bits == kHalfBits ? 1 : 7) {
    const float below = value_of(static_cast<uint16_t>(word), bits),
                above = value_of(static_cast<uint16_t>(word + 1), bits);
    if (!std::isfinite(above)) continue;
    const uint32_t middle = float_bits(below / 2 + above / 2);
    for (uint32_t near : {middle - 1, middle, middle + 1}) words.push_back(word % 2 ? near : near | 0x80000000u);
  }
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) words.push_back(static_cast<uint32_t>(random()));
  for (uint32_t special : {0u, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u, 1u, 0x007fffffu,
                           0x477fefffu, 0x477ff000u, 0x477fffffu, 0x47800000u, 0x7f7fffffu, 0x7f7f7fffu, 0x7f7f8000u})
    words.push_back(special);
  return words;
}

Job map_job(const std::string& name, MapMode mode, Words x, Format format,
            const std::function<uint32_t(size_t)>& want) {
  Job job{name, Check::kMap};
  job.params.mode = static_cast<uint32_t>(mode);
  job.params.count = static_cast<uint32_t>(x.size());
  job.x = std::move(x);
  job.results = job.x.size() * (mode == MapMode::kUnpackHalf ? 2 : 1);
  job.format = format;
  for (size_t i = 0; want && i < job.results; ++i) job.want.push_back(want(i));
  return job;
}

// ex2.approx.ftz: two units in the last place; results below the normal numbers are 0.
Job exp2_job() {
  Words x;
  for (int i = 0; i <= 80000; ++i) x.push_back(float_bits(-130.0f + static_cast<float>(i) * (150.0f / 80000)));
  for (float value :
       {0.0f, -0.0f, -INFINITY, INFINITY, NAN, -126.0f, -126.5f, -149.0f, -1e30f, 1e-40f, 127.99f, 128.0f, -1e-6f})
    x.push_back(float_bits(value));
  Job job = map_job("ex2.approx, 2 units", MapMode::kExp2, x, Format::kWords, {});
  for (const uint32_t word : x) {
    const double exact = std::exp2(static_cast<double>(bits_float(word)));
    const bool finite = std::isfinite(exact) && exact < 0x1p128;
    job.exact.push_back(finite ? exact : std::isnan(exact) ? NAN : INFINITY);
    job.unit.push_back(finite ? std::max(exact * 0x1p-23, 0x1p-126) : 1);
    job.bound.push_back(finite ? exact * 0x1p-22 + 0x1p-126 : 0);
  }
  return job;
}

void add_conversions(std::vector<Job>& jobs) {
  for (const int bits : {kHalfBits, kBfloatBits}) {
    const bool half = bits == kHalfBits;
    const Format format = half ? Format::kHalves : Format::kBfloats;
    const std::string type = half ? "f16" : "bf16";
    const Words x = floats_to_round(bits);
    const auto round = [x, bits](size_t i) { return rounded(bits_float(x[i]), bits); };
    jobs.push_back(map_job("cvt.rn." + type + "x2.f32", half ? MapMode::kPackHalf : MapMode::kPackBfloat, x, format,
                           [=](size_t i) { return pair(round(i), round(x.size() - 1 - i)); }));
    jobs.push_back(
        map_job("float to " + type + " of src/math", half ? MapMode::kToHalf : MapMode::kToBfloat, x, format, round));
    Words all(65536);
    for (uint32_t i = 0; i < 65536; ++i) all[i] = i;
    const auto widen = [bits](size_t i) { return float_bits(value_of(static_cast<uint16_t>(i), bits)); };
    jobs.push_back(map_job(type + " to float of src/math", half ? MapMode::kFromHalf : MapMode::kFromBfloat, all,
                           Format::kWords, widen));
    if (!half) continue;
    for (uint32_t i = 0; i < 65536; ++i) all[i] = pair(static_cast<uint16_t>(i), static_cast<uint16_t>(i * 5 + 3));
    jobs.push_back(map_job("cvt.f32.f16, both halves", MapMode::kUnpackHalf, all, Format::kWords,
                           [=](size_t i) { return widen(i % 2 ? (i / 2 * 5 + 3) % 65536 : i / 2); }));
  }
}

Job draws_job(const std::string& name, DrawMode mode, uint32_t count, uint32_t each, uint32_t size, float alpha) {
  Job job{name, Check::kDraws};
  Params& p = job.params;
  p.mode = static_cast<uint32_t>(mode);
  p.count = count;
  p.each = each;
  p.size = size;
  p.seed = 0x0123456789ABCDEFu + size;
  p.offset = 40;
  const bool permutation = draws_permutation(p);
  p.stream = static_cast<uint32_t>(permutation ? Stream::kPermutation : Stream::kLambdaNeg);
  p.alpha = alpha;
  p.shift = 1;
  job.results = count;
  job.on_model = each == 1;
  job.want.resize(count);
  const unsigned workers = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (unsigned w = 0; w < workers; ++w)
    threads.emplace_back([&job, workers, w] {
      for (uint32_t t = w; t < job.params.count; t += workers) job.want[t] = draw_checksum(job.params, t);
    });
  for (std::thread& thread : threads) thread.join();
  return job;
}

void add_draws(std::vector<Job>& jobs, bool large) {
  jobs.push_back(draws_job("Philox words", DrawMode::kPhilox, 4096, 1, 1, 1));
  for (const float alpha : {0.2f, 1.6f, 2.0f, 50.0f}) {
    const std::string name = "lambda, alpha " + std::to_string(alpha).substr(0, 4);
    jobs.push_back(draws_job(name + ", per row", DrawMode::kLambdaRow, 4096, 1, 1, alpha));
    jobs.push_back(draws_job(name + ", per element", DrawMode::kLambdaElement, 4096, 1, 129, alpha));
    if (!large) continue;
    jobs.push_back(draws_job(name + ", per row, 2^24", DrawMode::kLambdaRow, 1 << 14, 1 << 10, 1, alpha));
    jobs.push_back(draws_job(name + ", per element, 2^24", DrawMode::kLambdaElement, 1 << 14, 1 << 10, 129, alpha));
  }
  for (const uint32_t size : {1u, 2u, 16u, 17u, 257u, 4096u, 5003u}) {
    const std::string name = " of " + std::to_string(size);
    jobs.push_back(draws_job("sigma" + name, DrawMode::kSigma, size, 1, size, 1));
    jobs.push_back(draws_job("inverse of sigma" + name, DrawMode::kSigmaInverse, size, 1, size, 1));
    jobs.push_back(draws_job("permutation" + name, DrawMode::kPermute, size, 1, size, 1));
  }
  if (!large) return;
  jobs.push_back(draws_job("Philox words, 2^26", DrawMode::kPhilox, 1 << 16, 1 << 10, 1, 1));
  for (const uint32_t size : {65536u, 100003u, 262144u, 2147483647u})
    jobs.push_back(draws_job("permutation of " + std::to_string(size) + ", 2^20 rows", DrawMode::kPermute, 1 << 10,
                             1 << 10, size, 1));
}

void add_products(std::vector<Job>& jobs) {
  const struct {
    const char* name;
    ProductMode mode;
  } modes[] = {
      {"f16", ProductMode::kHalf}, {"bf16", ProductMode::kBfloat}, {"f16 in two parts", ProductMode::kHalfSplit}};
  for (const auto& [name, mode] : modes) {
    const std::string what = std::string("mma.m16n8k16 ") + name;
    jobs.push_back(products_job(what + ", integers", mode, Numbers::kIntegers, 16, 4));
    jobs.push_back(products_job(what + ", integers, a chain of 8", mode, Numbers::kIntegers, 128, 4));
    for (const uint32_t depth : {128u, 512u})
      jobs.push_back(
          products_job(what + ", normal, depth " + std::to_string(depth), mode, Numbers::kNormal, depth, 16));
    for (const uint32_t depth : {128u, 256u})
      jobs.push_back(
          products_job(what + ", of one sign, depth " + std::to_string(depth), mode, Numbers::kOneSign, depth, 16));
    jobs.push_back(products_job(what + ", weights, depth 4096", mode, Numbers::kWeights, 4096, 4));
  }
}

// A balanced tree over the lanes in their order.
template <class T, class Combine>
T tree(const std::vector<T>& values, size_t first, size_t count, const Combine& combine) {
  if (count == 1) return values[first];
  const T left = tree(values, first, count / 2, combine);
  return combine(left, tree(values, first + count / 2, count / 2, combine));
}

Job warp_reductions_job() {
  Job job{"cub::WarpReduce, whole warps", Check::kReduceWarps};
  constexpr uint32_t kWarps = 50;
  job.params.count = kWarps;
  job.results = kWarps * kWarpWords;
  std::mt19937 random(13);
  std::normal_distribution<float> normal;
  for (uint32_t warp = 0; warp < kWarps; ++warp) {
    std::vector<float> floats;
    std::vector<Span> spans;
    for (int lane = 0; lane < 32; ++lane) {
      floats.push_back(std::ldexp(normal(random), static_cast<int>(random() % 20)));
      job.x.push_back(float_bits(floats.back()));
      spans.push_back(span_of(job.x.back()));
    }
    const Span span = tree(spans, 0, 32, joined);
    job.want.push_back(float_bits(tree(floats, 0, 32, std::plus<float>())));
    job.want.insert(job.want.end(), {span.first, span.last, span.count, span.twice, span.thrice, span.hash});
  }
  return job;
}

// Each warp by such a tree, then the warps in order; every thread gets the results.
Job block_reductions_job() {
  Job job{"cub::BlockReduce, blocks of four warps, one after the other", Check::kReduceBlocks};
  constexpr uint32_t kBlocks = 20, kWarps = 4, kThreads = 32 * kWarps;
  job.params.count = kBlocks;
  job.results = kBlocks * kThreads * kBlockWords;
  std::mt19937 random(14);
  std::normal_distribution<float> normal;
  const auto in_order = [](const auto& values) {
    auto sum = tree(values, 0, 32, std::plus<>());
    for (uint32_t warp = 1; warp < kWarps; ++warp) sum += tree(values, warp * 32, 32, std::plus<>());
    return sum;
  };
  for (uint32_t block = 0; block < kBlocks; ++block) {
    std::vector<float> x, negative, inverse;
    std::vector<double> wide;
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      // Every fifth block has a NaN, in another warp each time.
      const bool is_nan = block % 5 == 4 && thread == block % kThreads * 6;
      x.push_back(is_nan ? std::nanf("") : std::ldexp(normal(random), static_cast<int>(random() % 20)));
      negative.push_back(-x.back());
      inverse.push_back(1 / x.back());
      wide.push_back(static_cast<double>(x.back()));
      job.x.push_back(float_bits(x.back()));
    }
    const bool has_nan = block % 5 == 4;
    const float largest = has_nan ? std::nanf("") : *std::max_element(x.begin(), x.end());
    for (uint32_t thread = 0; thread < kThreads; ++thread)
      job.want.insert(job.want.end(),
                      {float_bits(in_order(x)), float_bits(in_order(negative)), float_bits(in_order(inverse)),
                       float_bits(largest), float_bits(static_cast<float>(in_order(wide)))});
  }
  return job;
}

Job places_job() {
  Job job{"threadIdx.x and blockIdx, read again", Check::kPlaces};
  for (uint32_t y = 0; y < kPlaceBlocks; ++y)
    for (uint32_t x = 0; x < kPlaceBlocks; ++x)
      for (uint32_t thread = 0; thread < kPlaceThreads; ++thread) job.want.push_back(x << 24 | y << 16 | thread);
  job.results = job.want.size();
  return job;
}

}  // namespace

std::vector<Job> all_jobs(bool large) {
  std::vector<Job> jobs{copies_job(),          matrices_job(false),    matrices_job(true),
                        warp_reductions_job(), block_reductions_job(), places_job()};
  add_products(jobs);
  jobs.push_back(exp2_job());
  add_conversions(jobs);
  add_draws(jobs, large);
  if (!large) return jobs;
  for (const bool half : {true, false}) {
    Job job{std::string("every float to ") + (half ? "f16" : "bf16") + ": src/math as the instruction", Check::kSweep};
    job.params.mode = static_cast<uint32_t>(half ? SweepMode::kHalf : SweepMode::kBfloat);
    job.params.count = 1 << 17;
    job.results = 1 << 17;
    job.want.assign(job.results, 0);
    job.on_model = false;
    jobs.push_back(job);
  }
  return jobs;
}

}  // namespace fnce::conformance
