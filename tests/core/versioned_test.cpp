// Structs of older and newer callers, with a struct that has grown.
#include "core/versioned.h"

#include <cstring>

#include "support/catch.h"

using namespace fnce;

namespace {

struct Grown {
  uint64_t struct_size;
  int64_t old_field;
  int64_t new_field;
};
constexpr size_t kFirst = 16;
constexpr Grown kDefaults = {sizeof(Grown), 1, 2};

struct Newer {
  Grown known;
  int64_t unknown;
};

fnce_status status_of(void (*call)()) {
  try {
    call();
    return FNCE_OK;
  } catch (const StatusError& error) {
    return error.code();
  }
}

}  // namespace

TEST_CASE("versioned: an older caller's struct is written no further than it reaches") {
  Grown out;
  std::memset(&out, 0x5A, sizeof out);
  init_versioned(&out, kFirst, kDefaults, kFirst, "grown");
  CHECK(out.struct_size == kFirst);
  CHECK(out.old_field == 1);
  CHECK(out.new_field == 0x5A5A5A5A5A5A5A5A);
  out.old_field = 7;
  const Grown read = read_versioned(&out, kDefaults, kFirst, "grown");
  CHECK((read.old_field == 7 && read.new_field == 2));
}

TEST_CASE("versioned: a newer caller's struct is taken where the unknown bytes are zero") {
  Newer newer;
  std::memset(&newer, 0x5A, sizeof newer);
  init_versioned(&newer.known, sizeof newer, kDefaults, kFirst, "grown");
  CHECK((newer.known.struct_size == sizeof newer && newer.known.new_field == 2 && newer.unknown == 0));
  newer.known.new_field = 9;
  CHECK(read_versioned(&newer.known, kDefaults, kFirst, "grown").new_field == 9);
  newer.unknown = 1;
  CHECK_THROWS_AS(read_versioned(&newer.known, kDefaults, kFirst, "grown"), StatusError);
}

TEST_CASE("versioned: sizes that no version had are refused") {
  CHECK(status_of([] {
          Grown out = kDefaults;
          init_versioned(&out, kFirst - 8, kDefaults, kFirst, "grown");
        }) == FNCE_INVALID_ARGUMENT);
  CHECK(status_of([] {
          Grown in = kDefaults;
          in.struct_size = uint64_t{1} << 40;
          read_versioned(&in, kDefaults, kFirst, "grown");
        }) == FNCE_INVALID_ARGUMENT);
}
