// Assertions of the API-level suite on top of Catch2.
#pragma once

#include "flashnce/flashnce.h"
#include "support/catch.h"
#include "support/tolerance.h"

// A comparison by the policy; its reason is printed when it fails.
#define FNCE_CHECK_VERDICT(...)                          \
  do {                                                   \
    const support::Verdict fnce_verdict = (__VA_ARGS__); \
    INFO(fnce_verdict.why);                              \
    CHECK(fnce_verdict.ok);                              \
  } while (false)

// What holds for one kind of device only: `reason` says so in the output, and the test case ends.
#define FNCE_SKIP_UNLESS(condition, reason) \
  do {                                      \
    if (!(condition)) {                     \
      WARN("skipped: " << (reason));        \
      return;                               \
    }                                       \
  } while (false)

// A call that must return FNCE_OK; the library's sentence is printed when it does not.
#define FNCE_REQUIRE_OK(...)                               \
  do {                                                     \
    const fnce_status fnce_code = (__VA_ARGS__);           \
    INFO(fnce_status_string(fnce_code));                   \
    INFO((fnce_code == FNCE_OK ? "" : fnce_last_error())); \
    REQUIRE(fnce_code == FNCE_OK);                         \
  } while (false)
