// The layout of a partial and the carving of memory: pieces do not overlap, are aligned and lie inside.
#include "core/layout.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "support/catch.h"

using namespace fnce;

TEST_CASE("layout: the arrays of a partial are aligned, disjoint and inside") {
  for (int64_t n : {1, 7, 64, 1000})
    for (int64_t d : {1, 13, 128})
      for (int32_t scores : {0, 1, 2, 3}) {
        const fnce_layout layout = partial_layout(n, d, scores);
        std::vector<std::pair<uint64_t, uint64_t>> pieces;
        const auto add = [&](uint64_t start, int64_t bytes) {
          if (start) pieces.push_back({start, start + static_cast<uint64_t>(bytes)});
        };
        add(layout.m, 4 * n);
        add(layout.l, 4 * n);
        add(layout.o, 4 * n * d);
        for (int set = 0; set < 2; ++set) {
          for (uint64_t start : {layout.mean[set], layout.m2[set], layout.min[set], layout.max[set]}) add(start, 4 * n);
          for (uint64_t start : {layout.count[set], layout.n_greater[set], layout.n_greater_equal[set]})
            add(start, 8 * n);
        }
        add(layout.unmixed_m, 4 * n);
        add(layout.unmixed_l, 4 * n);
        CAPTURE(n, d, scores);
        REQUIRE(pieces.size() == 3u + 7u * ((scores & 1) + (scores >> 1 & 1)) + (scores & 2 ? 2u : 0u));
        std::sort(pieces.begin(), pieces.end());
        for (size_t i = 0; i < pieces.size(); ++i) {
          CHECK(pieces[i].first % FNCE_ALIGNMENT == 0);
          CHECK(pieces[i].second <= (i + 1 < pieces.size() ? pieces[i + 1].first : layout.bytes));
        }
      }
}

TEST_CASE("layout: counting and carving go the same way") {
  alignas(FNCE_ALIGNMENT) static unsigned char block[4096];
  Carver count(nullptr), carve(block);
  CHECK(count.take<float>(3) == nullptr);
  CHECK(carve.take<float>(3) == reinterpret_cast<float*>(block));
  CHECK(count.take<int64_t>(100) == nullptr);
  CHECK(reinterpret_cast<unsigned char*>(carve.take<int64_t>(100)) == block + FNCE_ALIGNMENT);
  CHECK(count.used() == carve.used());
  CHECK(count.used() == FNCE_ALIGNMENT + 1024);
}
