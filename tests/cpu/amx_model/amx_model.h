// AMX's tile intrinsics in plain C++, one set of tiles per thread, so that the AMX code of src/cpu/engines/bf16 runs in
// tests on processors without AMX. tdpbf16ps as the manual has it: per 32-bit pair two products added to a float32 one
// after the other, denormals taken and given as zeros. A tile that is not configured, or a shape beyond its
// configuration, ends the program.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace amx_model {
namespace {

struct Tiles {
  bool configured = false;
  int rows[8], row_bytes[8];
  alignas(64) unsigned char data[8][16][64];
};

inline Tiles& tiles() {
  static thread_local Tiles state;
  return state;
}

inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "amx_model: %s\n", what);
  std::abort();
}

inline void load_config(const void* memory) {
  const auto* bytes = static_cast<const unsigned char*>(memory);
  require(bytes[0] == 1, "palette is not 1");
  for (int i = 1; i < 16; ++i) require(bytes[i] == 0, "a reserved byte of the configuration is not zero");
  Tiles& t = tiles();
  for (int i = 0; i < 8; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, bytes + 16 + 2 * i, 2);
    t.row_bytes[i] = row_bytes;
    t.rows[i] = bytes[48 + i];
    require(t.row_bytes[i] <= 64 && t.rows[i] <= 16, "a tile is larger than 16 x 64 bytes");
  }
  std::memset(t.data, 0, sizeof t.data);
  t.configured = true;
}

inline void release() { tiles().configured = false; }

inline void load(int tile, const void* base, int64_t stride) {
  Tiles& t = tiles();
  require(t.configured, "load without a configuration");
  for (int r = 0; r < t.rows[tile]; ++r)
    std::memcpy(t.data[tile][r], static_cast<const unsigned char*>(base) + r * stride,
                static_cast<size_t>(t.row_bytes[tile]));
}

inline void store(int tile, void* base, int64_t stride) {
  Tiles& t = tiles();
  require(t.configured, "store without a configuration");
  for (int r = 0; r < t.rows[tile]; ++r)
    std::memcpy(static_cast<unsigned char*>(base) + r * stride, t.data[tile][r],
                static_cast<size_t>(t.row_bytes[tile]));
}

inline void zero(int tile) {
  require(tiles().configured, "zero without a configuration");
  std::memset(tiles().data[tile], 0, sizeof tiles().data[tile]);
}

inline float flushed(float x) { return x < 0x1p-126f && x > -0x1p-126f ? 0.0f : x; }

inline float element(const unsigned char* word, int half) {
  uint16_t bits;
  std::memcpy(&bits, word + 2 * half, 2);
  const uint32_t wide = uint32_t{bits} << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return flushed(x);
}

inline void multiply(int c, int a, int b) {
  Tiles& t = tiles();
  require(t.configured, "product without a configuration");
  require(t.row_bytes[a] / 4 == t.rows[b] && t.rows[c] == t.rows[a] && t.row_bytes[c] == t.row_bytes[b],
          "shapes of a product do not fit");
  for (int m = 0; m < t.rows[c]; ++m)
    for (int k = 0; k < t.row_bytes[a] / 4; ++k)
      for (int n = 0; n < t.row_bytes[c] / 4; ++n) {
        float sum;
        std::memcpy(&sum, t.data[c][m] + 4 * n, 4);
        const unsigned char *x = t.data[a][m] + 4 * k, *y = t.data[b][k] + 4 * n;
        for (int half = 0; half < 2; ++half) sum = flushed(__builtin_fmaf(element(x, half), element(y, half), sum));
        std::memcpy(t.data[c][m] + 4 * n, &sum, 4);
      }
}

}  // namespace
}  // namespace amx_model

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) amx_model::load_config(config)
#define _tile_release() amx_model::release()
#define _tile_loadd(tile, base, stride) amx_model::load(tile, base, stride)
#define _tile_stored(tile, base, stride) amx_model::store(tile, base, stride)
#define _tile_zero(tile) amx_model::zero(tile)
#define _tile_dpbf16ps(c, a, b) amx_model::multiply(c, a, b)
