// fnce_queue_push with every key and queue type: rows are the normalised keys rounded once, wherever the ring wraps;
// and fnce_scale into every type.
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/refusal.h"

namespace {

using namespace support;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The queue after one push into rows of 0.5, and the position after it.
struct Pushed {
  std::vector<float> rows;
  int64_t position;
};

struct Push {
  int64_t k, d, position;
  bool normalize;
  float epsilon = 1e-12f;
};

Pushed push_keys(const Push& how, const std::vector<float>& values, int32_t key_type, int32_t queue_type,
                 size_t skew = 0) {
  const Elements keys(key_type, values, skew);
  const Elements queue(queue_type, std::vector<float>(static_cast<size_t>(how.k * how.d), 0.5f), skew);
  const Buffer<int64_t> in(std::vector<int64_t>{how.position}), out(1);
  fnce_push push;
  require_ok(fnce_push_init(&push, sizeof push));
  push.n = keys.count() / how.d;
  push.k = how.k;
  push.d = how.d;
  push.device = device().kind();
  push.device_index = device().index();
  push.key_type = key_type;
  push.queue_type = queue_type;
  push.normalize = how.normalize;
  push.epsilon = how.epsilon;
  push.keys = keys.count() > 0 ? keys.get() : nullptr;
  push.queue = queue.get();
  push.position_in = in.get();
  push.position_out = out.get();
  FNCE_REQUIRE_OK(fnce_queue_push(&push, device().stream()));
  CHECK(keys.holds(values));
  CHECK((queue.guards_intact() && keys.guards_intact()));
  return {queue.values(), out.values()[0]};
}

template <class Body>
void for_every_pair(Body&& body) {
  for (const int32_t key_type : kTypes)
    for (const int32_t queue_type : kTypes) {
      INFO(type_name(key_type) << " keys into a " << type_name(queue_type) << " queue");
      body(key_type, queue_type);
    }
}

// True if `actual` is what some value within a few float32 roundings of the truth rounds to.
bool is_rounding_of(int32_t type, double truth, float actual) {
  const double slack = 4 * kFloatEpsilon * std::abs(truth);
  const double low = oracle::rounded(element_of(type), truth - slack),
               high = oracle::rounded(element_of(type), truth + slack);
  return double(actual) >= low && double(actual) <= high;
}

}  // namespace

TEST_CASE("types: pushed rows are the keys normalised in float32 and rounded once, for any batch and position") {
  Random random(21);
  for_every_pair([&](int32_t key_type, int32_t queue_type) {
    for (const int64_t d : {1, 7, 40})
      for (const int64_t k : {1, 5, 16})
        for (const int64_t n : {int64_t{0}, int64_t{1}, k - 1, k, k + 1, 3 * k + 2})
          for (const int64_t position : {int64_t{0}, k / 2, k - 1})
            for (const bool normalize : {false, true}) {
              INFO("k " << k << " d " << d << " n " << n << " position " << position << " normalize " << normalize);
              const auto keys = oracle::rounded(element_of(key_type), gaussian_rows(random, n, d));
              const Pushed out = push_keys({k, d, position, normalize}, keys, key_type, queue_type, 4);
              CHECK(out.position == (position + n) % k);
              std::vector<int64_t> source(static_cast<size_t>(k), -1);
              for (int64_t i = 0; i < n; ++i) source[static_cast<size_t>((position + i) % k)] = i;
              size_t wrong = 0;
              for (int64_t j = 0; j < k; ++j) {
                const int64_t i = source[static_cast<size_t>(j)];
                double squares = 0;
                for (int64_t c = 0; i >= 0 && c < d; ++c) squares += double(keys[i * d + c]) * double(keys[i * d + c]);
                for (int64_t c = 0; c < d; ++c) {
                  const float actual = out.rows[static_cast<size_t>(j * d + c)];
                  if (i < 0)
                    wrong += actual != 0.5f;
                  else if (normalize)
                    wrong += !is_rounding_of(queue_type, double(keys[i * d + c]) / std::sqrt(squares), actual);
                  else
                    wrong += double(actual) != oracle::rounded(element_of(queue_type), double(keys[i * d + c]));
                }
              }
              CHECK(wrong == 0);
            }
  });
}

TEST_CASE("types: a pushed row is the float32 row rounded once, and reads its keys exactly") {
  Random random(22);
  for_every_pair([&](int32_t key_type, int32_t queue_type) {
    const auto keys = oracle::rounded(element_of(key_type), gaussian_rows(random, 60, 29));
    const Push how{37, 29, 30, true};
    const Pushed exact = push_keys(how, keys, FNCE_FLOAT32, FNCE_FLOAT32);
    const Pushed typed = push_keys(how, keys, key_type, queue_type);
    CHECK(same_bits(typed.rows, oracle::rounded(element_of(queue_type), exact.rows)));
  });
}

TEST_CASE("types: keys that are not finite or overflow make their row NaN, others stay") {
  for_every_pair([&](int32_t key_type, int32_t queue_type) {
    const oracle::Element element = element_of(key_type);
    const auto largest = static_cast<float>(key_type == FNCE_FLOAT16 ? 65504.0 : 0x1.fep127);
    // Quiet and signalling NaN, infinities, and a norm that overflows where the type reaches that far.
    for (const float poison :
         {NAN, std::bit_cast<float>(0x7fa00000u), std::bit_cast<float>(0xffa00000u), kInfinity, -kInfinity, largest}) {
      Random random(23);
      std::vector<float> keys = oracle::rounded(element, gaussian_rows(random, 3, 17));
      for (size_t c = 17; c < 34; ++c) keys[c] = poison == largest ? poison : keys[c];
      keys[17 + 11] = poison;
      const Pushed out = push_keys({4, 17, 0, true}, keys, key_type, queue_type);
      const bool finite = poison == largest && key_type == FNCE_FLOAT16;
      for (size_t c = 0; c < 17; ++c) {
        INFO("poison " << poison << ", feature " << c);
        CHECK(static_cast<bool>(std::isfinite(out.rows[17 + c])) == finite);
        if (!finite) CHECK(std::isnan(out.rows[17 + c]));
        CHECK(std::isfinite(out.rows[c]));
        CHECK(std::isfinite(out.rows[34 + c]));
      }
    }
  });
}

TEST_CASE("types: without normalisation a key beyond float16 becomes infinity, a NaN stays NaN, denormals are kept") {
  const std::vector<float> keys{65519.0f, 65520.0f, -1e30f, NAN, 0x1p-24f, -0x1.8p-24f, 0x1p-25f, 0.0f, -0.0f};
  for (const int32_t key_type : {FNCE_FLOAT32, FNCE_BFLOAT16}) {
    const std::vector<float> given = oracle::rounded(element_of(key_type), keys);
    for (const int32_t queue_type : kTypes) {
      INFO(type_name(key_type) << " keys into a " << type_name(queue_type) << " queue");
      const Pushed out = push_keys({2, 9, 1, false}, given, key_type, queue_type);
      const std::vector<float> expected = oracle::rounded(element_of(queue_type), given);
      for (size_t c = 0; c < 9; ++c) {
        INFO("key " << given[c]);
        if (std::isnan(expected[c]))
          CHECK(std::isnan(out.rows[9 + c]));
        else
          CHECK(std::bit_cast<uint32_t>(out.rows[9 + c]) == std::bit_cast<uint32_t>(expected[c]));
      }
    }
  }
  const Pushed half = push_keys({2, 9, 1, false}, keys, FNCE_FLOAT32, FNCE_FLOAT16);
  CHECK(half.rows[9] == 65504.0f);
  CHECK(half.rows[10] == kInfinity);
  CHECK(half.rows[11] == -kInfinity);
  CHECK(half.rows[13] == 0x1p-24f);
  CHECK(half.rows[14] == -0x1p-23f);  // a tie, to even
  CHECK(half.rows[15] == 0.0f);       // a tie, to even
}

TEST_CASE("types: zero rows and rows below epsilon") {
  for_every_pair([&](int32_t key_type, int32_t queue_type) {
    std::vector<float> keys(3 * 8, 0.0f);
    for (size_t c = 0; c < 8; ++c) keys[8 + c] = 0.0625f;
    for (size_t c = 0; c < 8; ++c) keys[16 + c] = c % 2 ? 0.25f : -0.25f;
    const Pushed out = push_keys({3, 8, 0, true, 0.5f}, keys, key_type, queue_type);
    for (size_t c = 0; c < 8; ++c) {
      CHECK(out.rows[c] == 0.0f);
      CHECK(out.rows[8 + c] == 0.125f);
      CHECK(is_rounding_of(queue_type, (c % 2 ? 1 : -1) / std::sqrt(8.0), out.rows[16 + c]));
    }
  });
}

TEST_CASE("types: an odd address is refused by name, an even one is fine for 16-bit elements") {
  const Elements keys(FNCE_FLOAT16, std::vector<float>(12, 1.0f)), queue(FNCE_BFLOAT16, std::vector<float>(20, 0.5f));
  const Buffer<int64_t> position(std::vector<int64_t>{0}), after(1);
  fnce_push push;
  FNCE_REQUIRE_OK(fnce_push_init(&push, sizeof push));
  push.n = 3, push.k = 5, push.d = 4;
  push.device = device().kind();
  push.device_index = device().index();
  push.key_type = FNCE_FLOAT16;
  push.queue_type = FNCE_BFLOAT16;
  push.position_in = position.get();
  push.position_out = after.get();
  push.keys = misaligned(static_cast<unsigned char*>(keys.get()));
  push.queue = queue.get();
  check_refused(fnce_queue_push(&push, device().stream()), FNCE_INVALID_ARGUMENT, {"push.keys ", "multiples of 2"});
  push.keys = keys.get();
  push.queue = misaligned(static_cast<unsigned char*>(queue.get()));
  check_refused(fnce_queue_push(&push, device().stream()), FNCE_INVALID_ARGUMENT, {"push.queue ", "multiples of 2"});
  CHECK(queue.holds(std::vector<float>(20, 0.5f)));
  CHECK(after.untouched());
  push.queue_type = FNCE_FLOAT32;
  push.queue = static_cast<unsigned char*>(queue.get()) + 2;
  check_refused(fnce_queue_push(&push, device().stream()), FNCE_INVALID_ARGUMENT, {"push.queue ", "multiples of 4"});
}

namespace {

std::vector<float> scaled(const std::vector<float>& gradient, int64_t columns, const std::vector<float>& upstream,
                          int32_t type, size_t skew) {
  const Buffer<float> from(gradient, 4), by(upstream, 8);
  const auto count = static_cast<int64_t>(gradient.size());
  const Elements out(type, count, skew);
  FNCE_REQUIRE_OK(fnce_scale(device().kind(), device().index(), from.get(), count / columns, columns, by.get(),
                             by.count(), type, out.get(), device().stream()));
  CHECK(out.guards_intact());
  CHECK(from.holds(gradient));
  return out.values();
}

// Entries that are not what the float32 product rounds to; any NaN for NaN.
size_t count_wrong(const std::vector<float>& actual, const std::vector<float>& product, int32_t type) {
  const std::vector<float> expected = oracle::rounded(element_of(type), product);
  size_t wrong = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    wrong += std::isnan(expected[i]) ? !std::isnan(actual[i])
                                     : std::bit_cast<uint32_t>(actual[i]) != std::bit_cast<uint32_t>(expected[i]);
  return wrong;
}

}  // namespace

TEST_CASE("types: fnce_scale rounds the float32 product once, per call and per row, at any even address") {
  Random random(24);
  for (const int32_t type : kTypes)
    for (const int64_t rows : {1, 2, 33})
      for (const int64_t columns : {1, 7, 128, 301})
        for (const bool per_row : {false, true})
          for (const size_t skew : {size_t{0}, size_t{4}, size_t{28}}) {
            const std::vector<float> gradient = gaussian_rows(random, rows, columns);
            const std::vector<float> upstream = gaussian_rows(random, per_row ? rows : 1, 1);
            std::vector<float> product(gradient.size());
            for (size_t i = 0; i < product.size(); ++i)
              product[i] = gradient[i] * upstream[per_row ? i / static_cast<size_t>(columns) : 0];
            INFO(type_name(type) << ' ' << rows << " x " << columns << ", per row " << per_row << ", skew " << skew);
            CHECK(count_wrong(scaled(gradient, columns, upstream, type, skew), product, type) == 0);
          }
}

TEST_CASE("types: fnce_scale at every number of a 16-bit type, at every middle of two, and next to them") {
  for (const int32_t type : {FNCE_FLOAT16, FNCE_BFLOAT16}) {
    const oracle::Element element = element_of(type);
    std::vector<float> gradient;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const float value = oracle::decode(element, static_cast<uint16_t>(bits));
      gradient.push_back(value);
      if (!std::isfinite(value)) continue;
      const auto middle = static_cast<float>(
          double(value) + std::copysign(oracle::spacing(element, std::abs(double(value))) / 2, value));
      for (const float direction : {kInfinity, -kInfinity}) gradient.push_back(std::nextafter(middle, direction));
      gradient.push_back(middle);
    }
    for (const float by : {1.0f, -1.0f, 0.5f}) {
      std::vector<float> product = gradient;
      for (float& x : product) x *= by;
      INFO(type_name(type) << " times " << by);
      CHECK(count_wrong(scaled(gradient, static_cast<int64_t>(gradient.size()), {by}, type, 4), product, type) == 0);
    }
  }
}

TEST_CASE("types: fnce_scale overflows to infinity, keeps NaN, refuses odd addresses") {
  const std::vector<float> gradient{65504.0f, 65519.0f, 65520.0f, -7e4f, NAN, kInfinity, 3.4e38f, 1e-8f};
  const std::vector<float> half = scaled(gradient, 8, {1.0f}, FNCE_FLOAT16, 0);
  CHECK((half[0] == 65504.0f && half[1] == 65504.0f && half[2] == kInfinity && half[3] == -kInfinity));
  CHECK((std::isnan(half[4]) && half[5] == kInfinity && half[6] == kInfinity && half[7] == 0.0f));
  const std::vector<float> brain = scaled(gradient, 8, {1.0f}, FNCE_BFLOAT16, 0);
  CHECK((brain[2] == 65536.0f && std::isnan(brain[4]) && brain[5] == kInfinity && brain[6] == kInfinity));
  const Buffer<float> from(gradient), by(std::vector<float>{2.0f});
  const Elements out(FNCE_FLOAT16, 8);
  check_refused(fnce_scale(device().kind(), device().index(), from.get(), 1, 8, by.get(), 1, FNCE_FLOAT16,
                           misaligned(static_cast<unsigned char*>(out.get())), device().stream()),
                FNCE_INVALID_ARGUMENT, {"out ", "multiples of 2"});
  CHECK(out.untouched());
}
