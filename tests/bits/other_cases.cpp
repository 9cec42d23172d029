// The queue and the backward pass: all element types, a batch that wraps around and one longer than the queue, values
// that are not finite among them.
#include <cmath>

#include "bits/cases.h"
#include "bits/digest.h"
#include "support/random_case.h"

namespace bits {
namespace {

using namespace support;

std::string pushed(int32_t key_type, int32_t queue_type, int64_t n, int64_t k, int64_t d, bool normalize) {
  Random random(static_cast<uint64_t>(n + 1000 * d + k));
  std::vector<float> keys = gaussian_rows(random, n, d);
  if (n > 5) keys[static_cast<size_t>(4 * d)] = NAN;
  const Elements memory(key_type, keys, 4), queue(queue_type, gaussian_rows(random, k, d), 12);
  const Buffer<int64_t> in(std::vector<int64_t>{k - 2}), out(1);
  fnce_push push;
  require_ok(fnce_push_init(&push, sizeof push));
  push.n = n;
  push.k = k;
  push.d = d;
  push.device = device().kind();
  push.device_index = device().index();
  push.key_type = key_type;
  push.queue_type = queue_type;
  push.normalize = normalize;
  push.keys = memory.get();
  push.queue = queue.get();
  push.position_in = in.get();
  push.position_out = out.get();
  require_ok(fnce_queue_push(&push, device().stream()));
  Line line;
  line.add("queue", queue.values());
  line.add("position", out.values());
  return line.text();
}

void push_cases(const Report& report) {
  for (const int32_t key_type : kTypes)
    for (const int32_t queue_type : kTypes)
      for (const bool normalize : {false, true})
        for (const int64_t n : {1, 7, 50})
          for (const int64_t d : {1, 13, 128, 1030}) {
            const int64_t k = 37;
            report("push n=" + std::to_string(n) + " k=" + std::to_string(k) + " d=" + std::to_string(d) + " types=" +
                       type_name(key_type) + "," + type_name(queue_type) + " normalize=" + std::to_string(normalize),
                   [&] { return pushed(key_type, queue_type, n, k, d, normalize); });
          }
}

std::string scaled(int32_t type, int64_t rows, int64_t columns, bool per_row) {
  Random random(static_cast<uint64_t>(rows + 1000 * columns));
  std::vector<float> gradient = gaussian_rows(random, rows, columns);
  gradient.back() = 3e38f;
  const Buffer<float> from(gradient, 4), by(gaussian_rows(random, per_row ? rows : 1, 1), 8);
  const Elements out(type, rows * columns, 12);
  require_ok(fnce_scale(device().kind(), device().index(), from.get(), rows, columns, by.get(), by.count(), type,
                        out.get(), device().stream()));
  Line line;
  line.add("out", out.values());
  return line.text();
}

void scale_cases(const Report& report) {
  for (const int32_t type : kTypes)
    for (const int64_t rows : {1, 33, 257})
      for (const int64_t columns : {1, 7, 128, 300})
        for (const bool per_row : {false, true})
          report("scale rows=" + std::to_string(rows) + " columns=" + std::to_string(columns) +
                     " type=" + type_name(type) + " per_row=" + std::to_string(per_row),
                 [&] { return scaled(type, rows, columns, per_row); });
}

}  // namespace

void other_cases(const Report& report) {
  push_cases(report);
  scale_cases(report);
}

}  // namespace bits
