// The cut of a problem into panels, tiles and tasks: everything covered once, whatever the sizes.
#include "cpu/tiling.h"

#include "support/catch.h"

using namespace fnce::cpu;

TEST_CASE("tiling: panels cover the vectors of a row block in order, without lone thirds") {
  for (int widest : {2, 3})
    for (int64_t vectors = 1; vectors <= 300; ++vectors) {
      const Panels panels = panels_of(vectors, widest);
      int covered = 0;
      bool in_order = true;
      for (int p = 0; p < panels.count(); ++p) {
        in_order = in_order && panels.first_vector(p) == covered && panels.width(p) >= 1 && panels.width(p) <= widest;
        covered += panels.width(p);
      }
      CAPTURE(vectors, widest);
      CHECK(in_order);
      CHECK(covered == vectors);
      CHECK(panels.ones <= (widest == 3 && vectors > 1 ? 0 : 1));
    }
}

TEST_CASE("tiling: row blocks, tiles and chunks cover all rows and columns once") {
  for (int lanes : {4, 8, 16})
    for (int64_t n : {1, 15, 16, 17, 1024, 1025, 5000, 100000})
      for (int64_t k : {0, 1, 95, 96, 97, 4096, 65536, 1000003})
        for (int64_t d : {1, 128, 300, 100000}) {
          const Tiling t(n, k, k / 3, d, {lanes, 3, 8, 24});
          int64_t rows = 0;
          for (int64_t b = 0; b < t.row_blocks; ++b) {
            rows += t.rows_of(b);
            if (t.rows_of(b) < 1 || t.rows_of(b) > kMaxRowBlock || t.padded_rows(b) < t.rows_of(b) ||
                t.padded_rows(b) > t.max_padded_rows())
              FAIL("row block " << b << " of " << n << " rows");
          }
          CAPTURE(lanes, n, k, d);
          REQUIRE(rows == n);
          REQUIRE(t.chunks <= kMaxChunks);
          REQUIRE((t.queue.chunks == 0) == (k == 0));
          REQUIRE((t.batch.chunks == 0) == (k / 3 == 0));
          int64_t queue = 0, batch = 0;
          for (int64_t c = 0; c < t.chunks; ++c) {
            int64_t& covered = t.is_batch(c) ? batch : queue;
            if (t.first_column(c) != covered || t.columns_of(c) < 1) FAIL("chunk " << c << " of " << k << " columns");
            covered = t.end_column(c);
          }
          REQUIRE(queue == k);
          REQUIRE(batch == k / 3);
        }
}

TEST_CASE("tiling: the sums of all tasks stay within a budget, not a multiple of N x K") {
  for (int64_t n : {32, 256, 1024, 4096}) {
    const Tiling t(n, 65536, 0, 128, {16, 3, 8, 24});
    CHECK(t.tasks() * t.max_padded_rows() * (t.d_padded + 16) * 4 <= (64 << 20));
  }
}
