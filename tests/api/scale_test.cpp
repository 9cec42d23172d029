// fnce_scale: a saved gradient times what comes from above, per call and per row, rounded once.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/refusal.h"

namespace {

using namespace support;

fnce_status scale(const float* gradient, int64_t rows, int64_t columns, const float* upstream, int64_t count,
                  void* out) {
  return fnce_scale(device().kind(), device().index(), gradient, rows, columns, upstream, count, FNCE_FLOAT32, out,
                    device().stream());
}

}  // namespace

TEST_CASE("scale: out is the correctly rounded product, for a scalar and for one factor per row") {
  Random random(1);
  for (const int64_t rows : {1, 2, 33, 257}) {
    for (const int64_t columns : {1, 7, 128, 300}) {
      for (const bool per_row : {false, true}) {
        const std::vector<float> gradient = gaussian_rows(random, rows, columns);
        const std::vector<float> upstream = gaussian_rows(random, per_row ? rows : 1, 1);
        const Buffer<float> from(gradient, 4), by(upstream, 8), out(rows * columns, 12);
        FNCE_REQUIRE_OK(scale(from.get(), rows, columns, by.get(), by.count(), out.get()));
        std::vector<float> expected(gradient.size());
        for (size_t i = 0; i < expected.size(); ++i)
          expected[i] = gradient[i] * upstream[per_row ? i / static_cast<size_t>(columns) : 0];
        INFO(rows << " x " << columns << ", per row " << per_row);
        CHECK(out.holds(expected));
        CHECK(out.guards_intact());
        CHECK(from.holds(gradient));
      }
    }
  }
}

TEST_CASE("scale: overflow gives infinity, NaN stays NaN, zero times infinity is NaN") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Buffer<float> from(std::vector<float>{3e38f, -3e38f, NAN, infinity, 1e-30f}), out(5);
  const Buffer<float> ten(std::vector<float>{10.0f}), zero(std::vector<float>{0.0f});
  FNCE_REQUIRE_OK(scale(from.get(), 1, 5, ten.get(), 1, out.get()));
  std::vector<float> values = out.values();
  CHECK(values[0] == infinity);
  CHECK(values[1] == -infinity);
  CHECK(std::isnan(values[2]));
  CHECK(values[3] == infinity);
  FNCE_REQUIRE_OK(scale(from.get(), 5, 1, zero.get(), 1, out.get()));
  values = out.values();
  CHECK(values[0] == 0.0f);
  CHECK(std::isnan(values[3]));
}

TEST_CASE("scale: nothing to do is fine") {
  const Buffer<float> upstream(std::vector<float>{2.0f});
  FNCE_REQUIRE_OK(scale(nullptr, 0, 5, upstream.get(), 1, nullptr));
  FNCE_REQUIRE_OK(scale(nullptr, 5, 0, upstream.get(), 1, nullptr));
  FNCE_REQUIRE_OK(scale(nullptr, 0, 5, nullptr, 0, nullptr));
}

TEST_CASE("errors: fnce_scale") {
  const Buffer<float> from(std::vector<float>(12, 1.0f)), by(std::vector<float>(3, 2.0f)), out(12);
  struct Arguments {
    int32_t device, index;
    const float* gradient;
    int64_t rows, columns;
    const float* upstream;
    int64_t count;
    int32_t type;
    void* out;
  };
  const Arguments good{device().kind(), device().index(), from.get(), 3, 4, by.get(), 3, FNCE_FLOAT32, out.get()};
  const auto refused = [&](const Arguments& a, fnce_status status, const std::vector<std::string>& words) {
    INFO(words[0]);
    check_refused(fnce_scale(a.device, a.index, a.gradient, a.rows, a.columns, a.upstream, a.count, a.type, a.out,
                             device().stream()),
                  status, words);
    CHECK(out.untouched());
  };
  Arguments a = good;
  a.device = 9, refused(a, FNCE_INVALID_ARGUMENT, {"device ", "9", "FNCE_CPU"});
  a = good, a.device = FNCE_CPU, a.index = 2, refused(a, FNCE_INVALID_ARGUMENT, {"device_index ", "2"});
  a = good, a.gradient = nullptr, refused(a, FNCE_INVALID_ARGUMENT, {"gradient ", "NULL"});
  a = good, a.gradient = misaligned(good.gradient), refused(a, FNCE_INVALID_ARGUMENT, {"gradient ", "0x"});
  a = good, a.rows = -1, refused(a, FNCE_INVALID_ARGUMENT, {"rows ", "-1"});
  a = good, a.columns = -2, refused(a, FNCE_INVALID_ARGUMENT, {"columns ", "-2"});
  a = good, a.rows = INT64_MAX, a.count = 1, refused(a, FNCE_INVALID_ARGUMENT, {"rows ", "9223372036854775807"});
  a = good, a.columns = INT64_MAX, refused(a, FNCE_INVALID_ARGUMENT, {"columns ", "9223372036854775807"});
  a = good, a.upstream = nullptr, refused(a, FNCE_INVALID_ARGUMENT, {"upstream ", "NULL"});
  a = good, a.upstream = misaligned(good.upstream), refused(a, FNCE_INVALID_ARGUMENT, {"upstream ", "0x"});
  a = good, a.count = 2, refused(a, FNCE_INVALID_ARGUMENT, {"upstream_count ", "2", "1", "3"});
  a = good, a.count = 0, refused(a, FNCE_INVALID_ARGUMENT, {"upstream_count ", "0"});
  a = good, a.type = 0, refused(a, FNCE_INVALID_ARGUMENT, {"out_type ", "0", "FNCE_FLOAT32"});
  a = good, a.type = 4, refused(a, FNCE_INVALID_ARGUMENT, {"out_type ", "4", "FNCE_BFLOAT16"});
  a = good, a.out = nullptr, refused(a, FNCE_INVALID_ARGUMENT, {"out ", "NULL"});
  a = good, a.out = misaligned(out.get()), refused(a, FNCE_INVALID_ARGUMENT, {"out ", "0x"});
  a = good, a.out = const_cast<float*>(good.gradient), refused(a, FNCE_INVALID_ARGUMENT, {"out ", "gradient"});
  CHECK(from.holds(std::vector<float>(12, 1.0f)));
}
