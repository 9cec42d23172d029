// fnce_queue_push, equation (10): wrap-around for any batch, normalisation, positions, and wrong arguments.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/random_case.h"
#include "support/refusal.h"

namespace {

using namespace support;

// A queue on the device with its position, and what a naive ring in float64 would hold.
struct Ring {
  Ring(int64_t k_, int64_t d_, int64_t position, bool same_position)
      : k(k_),
        d(d_),
        queue(start(k_, d_)),
        in(std::vector<int64_t>{position}),
        out(std::vector<int64_t>{-5}),
        same(same_position && device().kind() == FNCE_CPU) {  // a GPU wants two
    fnce_push_init(&push, sizeof push);
    push.k = k;
    push.d = d;
    push.device = device().kind();
    push.device_index = device().index();
    push.queue = queue.get();
    push.position_in = in.get();
    push.position_out = same ? in.get() : out.get();
  }
  static std::vector<float> start(int64_t k, int64_t d) {
    std::vector<float> rows(static_cast<size_t>(k * d));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = 1000.0f + static_cast<float>(i);
    return rows;
  }
  int64_t position() const { return same ? in.values()[0] : out.values()[0]; }

  int64_t k, d;
  Buffer<float> queue;
  Buffer<int64_t> in, out;
  bool same;
  fnce_push push;
};

// Pushes `keys` and compares every row of the queue: those written, and bit for bit those that must not be.
void push_and_compare(Ring& ring, const std::vector<float>& keys, bool normalize, float epsilon) {
  const int64_t k = ring.k, d = ring.d, n = static_cast<int64_t>(keys.size()) / d;
  const int64_t position = ring.in.values()[0];
  std::vector<float> expected = ring.queue.values();
  std::vector<int64_t> source(static_cast<size_t>(k), -1);
  for (int64_t i = 0; i < n; ++i) source[static_cast<size_t>((position + i) % k)] = i;
  const Buffer<float> memory(keys, 4);
  ring.push.n = n;
  ring.push.normalize = normalize;
  ring.push.epsilon = epsilon;
  ring.push.keys = n > 0 ? memory.get() : nullptr;
  FNCE_REQUIRE_OK(fnce_queue_push(&ring.push, device().stream()));
  const std::vector<float> actual = ring.queue.values();
  CHECK(ring.queue.guards_intact());
  CHECK(memory.holds(keys));
  CHECK(ring.position() == (position + n) % k);
  if (!ring.same) CHECK(ring.in.values()[0] == position);
  for (int64_t j = 0; j < k; ++j) {
    const int64_t i = source[static_cast<size_t>(j)];
    double squares = 0;
    for (int64_t c = 0; i >= 0 && c < d; ++c) squares += double(keys[i * d + c]) * double(keys[i * d + c]);
    const double divisor = normalize ? std::max(std::sqrt(squares), double(epsilon)) : 1.0;
    INFO("row " << j << " from key " << i);
    for (int64_t c = 0; c < d; ++c) {
      const size_t at = static_cast<size_t>(j * d + c);
      if (i < 0) {
        CHECK(actual[at] == expected[at]);
        continue;
      }
      const double truth = double(keys[i * d + c]) / divisor;
      // A norm of float32 squares, one division: a few roundings.
      CHECK(std::abs(double(actual[at]) - truth) <= (normalize ? 4 : 0) * kFloatEpsilon * std::abs(truth));
    }
  }
}

}  // namespace

TEST_CASE("queue: batches of any size wrap around, no other row is touched") {
  Random random(3);
  for (const bool same : {true, false}) {
    for (const int64_t d : {1, 5, 16}) {
      for (const int64_t k : {1, 7, 16}) {
        const int64_t counts[] = {0, 1, k - 1, k, k + 1, 2 * k, 5 * k + 3};
        for (const int64_t n : counts) {
          for (const int64_t position : {int64_t{0}, k / 2, k - 1}) {
            INFO("k " << k << " d " << d << " n " << n << " position " << position << " same " << same);
            Ring ring(k, d, position, same);
            push_and_compare(ring, gaussian_rows(random, n, d), d > 1, 1e-12f);
          }
        }
      }
    }
  }
}

TEST_CASE("queue: many pushes in a row follow the position") {
  Random random(4);
  Ring ring(37, 8, 0, true);
  for (int step = 0; step < 60; ++step) {
    push_and_compare(ring, gaussian_rows(random, random.below(50), 8), true, 1e-12f);
    if (!ring.same) ring.in.upload(ring.out.values().data());
  }
}

TEST_CASE("queue: keys as they are without normalisation") {
  Random random(5);
  Ring ring(9, 13, 4, true);
  push_and_compare(ring, gaussian_rows(random, 7, 13), false, 1e-12f);
}

TEST_CASE("queue: rows below epsilon, zero rows, NaN") {
  Random random(6);
  std::vector<float> keys = gaussian_rows(random, 4, 6);
  for (size_t c = 0; c < 6; ++c) {
    keys[c] *= 1e-3f;    // below an epsilon of 0.5
    keys[6 + c] = 0.0f;  // zero
    keys[12 + c] *= 1e-15f;
  }
  Ring ring(8, 6, 6, true);
  push_and_compare(ring, keys, true, 0.5f);
  Ring tiny(8, 6, 6, true);
  push_and_compare(tiny, keys, true, 1e-12f);
  keys[20] = NAN;
  const Buffer<float> memory(keys);
  Ring poisoned(8, 6, 0, true);
  poisoned.push.n = 4;
  poisoned.push.keys = memory.get();
  FNCE_REQUIRE_OK(fnce_queue_push(&poisoned.push, device().stream()));
  const std::vector<float> rows = poisoned.queue.values();
  for (size_t c = 0; c < 6; ++c) {
    CHECK(std::isnan(rows[18 + c]));
    CHECK(std::isfinite(rows[12 + c]));
  }
}

TEST_CASE("queue: defaults of fnce_push_init") {
  fnce_push push;
  FNCE_REQUIRE_OK(fnce_push_init(&push, sizeof push));
  CHECK(push.struct_size == sizeof push);
  CHECK((push.device == FNCE_CPU && push.key_type == FNCE_FLOAT32 && push.queue_type == FNCE_FLOAT32));
  CHECK((push.normalize == 1 && push.epsilon == 1e-12f));
  CHECK((push.keys == nullptr && push.queue == nullptr && push.position_in == nullptr && push.position_out == nullptr));
  check_refused(fnce_push_init(nullptr, sizeof push), FNCE_INVALID_ARGUMENT, {"push ", "NULL"});
  check_refused(fnce_push_init(&push, 8), FNCE_INVALID_ARGUMENT, {"size ", "8"});
}

TEST_CASE("errors: fnce_queue_push") {
  const Buffer<float> keys(std::vector<float>(3 * 4, 1.0f));
  struct Wrong {
    void (*spoil)(fnce_push&);
    fnce_status status;
    std::vector<std::string> words;
  };
  const std::vector<Wrong> wrongs{
      {[](fnce_push& p) { p.n = -1; }, FNCE_INVALID_ARGUMENT, {"push.n ", "-1"}},
      {[](fnce_push& p) { p.n = INT64_MAX; }, FNCE_INVALID_ARGUMENT, {"push.n ", "9223372036854775807"}},
      {[](fnce_push& p) { p.k = 0; }, FNCE_INVALID_ARGUMENT, {"push.k ", " 0;", "1 .. 2147483647"}},
      {[](fnce_push& p) { p.k = 2147483648; }, FNCE_INVALID_ARGUMENT, {"push.k ", "2147483648"}},
      {[](fnce_push& p) { p.d = 0; }, FNCE_INVALID_ARGUMENT, {"push.d ", " 0;", "1 .. 1048576"}},
      {[](fnce_push& p) { p.d = 1048577; }, FNCE_INVALID_ARGUMENT, {"push.d ", "1048577"}},
      {[](fnce_push& p) { p.device = 0; }, FNCE_INVALID_ARGUMENT, {"push.device ", " 0;", "FNCE_CPU"}},
      {[](fnce_push& p) { p.device_index = 1, p.device = FNCE_CPU; },
       FNCE_INVALID_ARGUMENT,
       {"push.device_index ", "1"}},
      {[](fnce_push& p) { p.key_type = 0; }, FNCE_INVALID_ARGUMENT, {"push.key_type ", " 0;"}},
      {[](fnce_push& p) { p.key_type = 4; }, FNCE_INVALID_ARGUMENT, {"push.key_type ", "4", "FNCE_BFLOAT16"}},
      {[](fnce_push& p) { p.queue_type = 4; }, FNCE_INVALID_ARGUMENT, {"push.queue_type ", "4", "FNCE_BFLOAT16"}},
      {[](fnce_push& p) { p.queue_type = -1; }, FNCE_INVALID_ARGUMENT, {"push.queue_type ", "-1", "FNCE_BFLOAT16"}},
      {[](fnce_push& p) { p.normalize = 2; }, FNCE_INVALID_ARGUMENT, {"push.normalize ", "2"}},
      {[](fnce_push& p) { p.epsilon = 0; }, FNCE_INVALID_ARGUMENT, {"push.epsilon ", "0"}},
      {[](fnce_push& p) { p.epsilon = NAN; }, FNCE_INVALID_ARGUMENT, {"push.epsilon ", "nan"}},
      {[](fnce_push& p) { p.epsilon = -1; }, FNCE_INVALID_ARGUMENT, {"push.epsilon ", "-1"}},
      {[](fnce_push& p) { p.checks = FNCE_CHECK_PERMUTATION; },
       FNCE_INVALID_ARGUMENT,
       {"push.checks ", "1", "FNCE_CHECK_POINTERS"}},
      {[](fnce_push& p) { p.reserved = 1; }, FNCE_INVALID_ARGUMENT, {"push.reserved ", "1"}},
      {[](fnce_push& p) { p.keys = nullptr; }, FNCE_INVALID_ARGUMENT, {"push.keys ", "NULL"}},
      {[](fnce_push& p) { p.queue = nullptr; }, FNCE_INVALID_ARGUMENT, {"push.queue ", "NULL"}},
      {[](fnce_push& p) { p.position_in = nullptr; }, FNCE_INVALID_ARGUMENT, {"push.position_in ", "NULL"}},
      {[](fnce_push& p) { p.position_out = nullptr; }, FNCE_INVALID_ARGUMENT, {"push.position_out ", "NULL"}},
      {[](fnce_push& p) { p.keys = misaligned(static_cast<const float*>(p.keys)); },
       FNCE_INVALID_ARGUMENT,
       {"push.keys ", "0x"}},
      {[](fnce_push& p) { p.queue = misaligned(static_cast<float*>(p.queue)); },
       FNCE_INVALID_ARGUMENT,
       {"push.queue ", "0x"}},
      {[](fnce_push& p) { p.position_in = misaligned(p.position_in); },
       FNCE_INVALID_ARGUMENT,
       {"push.position_in ", "0x"}},
      {[](fnce_push& p) { p.position_out = misaligned(p.position_out); },
       FNCE_INVALID_ARGUMENT,
       {"push.position_out ", "0x"}},
      {[](fnce_push& p) { p.struct_size = 16; }, FNCE_INVALID_ARGUMENT, {"push.struct_size ", "16"}}};
  for (const Wrong& wrong : wrongs) {
    INFO(wrong.words[0]);
    Ring ring(5, 4, 2, false);
    ring.push.n = 3;
    ring.push.keys = keys.get();
    wrong.spoil(ring.push);
    check_refused(fnce_queue_push(&ring.push, device().stream()), wrong.status, wrong.words);
    CHECK(ring.queue.holds(Ring::start(5, 4)));
    CHECK(ring.out.values()[0] == -5);
  }
  check_refused(fnce_queue_push(nullptr, device().stream()), FNCE_INVALID_ARGUMENT, {"push ", "NULL"});
  if (!device().host_memory()) return;
  for (const int64_t position : {int64_t{-1}, int64_t{5}, INT64_MAX}) {
    Ring ring(5, 4, position, false);
    ring.push.n = 3;
    ring.push.keys = keys.get();
    check_refused(fnce_queue_push(&ring.push, device().stream()), FNCE_INVALID_ARGUMENT,
                  {"position_in ", std::to_string(position), "0 .. 4"});
    CHECK(ring.queue.holds(Ring::start(5, 4)));
  }
}
