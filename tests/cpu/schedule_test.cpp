// Who takes which task: everything once for any number of threads, and no thread is left idle where panels remain.
#include "cpu/schedule.h"

#include <vector>

#include "support/catch.h"

using namespace fnce::cpu;

TEST_CASE("schedule: every panel of every row block meets every chunk once, long chunks first") {
  for (const int64_t n : {1, 17, 256, 1025, 3000})
    for (const int64_t k : {1, 97, 4096, 65536})
      for (const int threads : {1, 2, 3, 7, 32, 1024}) {
        const Tiling t(n, k, 0, 128, {8, 3, 8, 24});
        const Schedule schedule(t, threads, 10);
        const int64_t most = t.panels(0).count();
        std::vector<int> met(static_cast<size_t>(t.row_blocks * t.chunks * most), 0);
        int64_t columns = k;
        bool in_order = true;
        for (int64_t i = 0; i < schedule.tasks(); ++i) {
          const PassTask task = schedule.task(i);
          in_order = in_order && t.columns_of(task.chunk) <= columns;
          columns = t.columns_of(task.chunk);
          for (int p = task.first_panel; p < task.end_panel; ++p)
            ++met[static_cast<size_t>((task.block * t.chunks + task.chunk) * most + p)];
        }
        CAPTURE(n, k, threads);
        CHECK(in_order);
        bool once = true;
        for (int64_t b = 0; b < t.row_blocks; ++b)
          for (int64_t c = 0; c < t.chunks; ++c)
            for (int64_t p = 0; p < most; ++p)
              once = once && met[static_cast<size_t>((b * t.chunks + c) * most + p)] == (p < t.panels(b).count());
        CHECK(once);
      }
}

TEST_CASE("schedule: row blocks are cut where that ends earlier, and only there") {
  const Tiling few(256, 4096, 0, 128, {8, 3, 8, 24}), many(256, 65536, 0, 128, {8, 3, 8, 24});
  CHECK(Schedule(few, 1, 10).parts() == 1);
  CHECK(Schedule(few, 2, 10).parts() == 1);
  CHECK(Schedule(few, 32, 10).tasks() >= 32);
  CHECK(Schedule(many, 32, 10).parts() == 1);
  CHECK(Schedule(many, 24, 10).parts() > 1);
  // Rows that are dear to make are made once, unless threads would stand idle.
  CHECK(Schedule(many, 24, 10000).parts() == 1);
}

TEST_CASE("tiling: a range of panels has their widths in order") {
  for (int64_t vectors = 1; vectors <= 40; ++vectors) {
    const Panels all = panels_of(vectors, 3);
    for (int first = 0; first < all.count(); ++first)
      for (int end = first; end <= all.count(); ++end) {
        const Panels some = all.some(first, end);
        bool same = some.count() == end - first;
        for (int p = first; same && p < end; ++p)
          same = some.width(p - first) == all.width(p) &&
                 some.first_vector(p - first) == all.first_vector(p) - all.first_vector(first);
        CAPTURE(vectors, first, end);
        CHECK(same);
      }
  }
}
