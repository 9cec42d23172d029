// Every mistake that the harness is there to find is planted, and found: by wrong results under the schedule that
// provokes them, by the harness itself, or by a sanitizer where this build has it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "hostcuda/launch.h"
#include "hostcuda/selftest/build.h"
#include "support/catch.h"

namespace {

using hostcuda::Schedule;
using selftest::kAsan;
using selftest::kTsan;

// All that the program said.
std::string run(const std::string& mistake, Schedule schedule, unsigned workers = 1) {
  // Looking up names and waiting at the end takes sanitizers longer than all the rest.
  const std::string command =
      std::string("TSAN_OPTIONS=symbolize=0:atexit_sleep_ms=0 ASAN_OPTIONS=symbolize=0 FNCE_HOSTCUDA_SCHEDULE=") +
      hostcuda::name_of(schedule) + " FNCE_HOSTCUDA_WORKERS=" + std::to_string(workers) + " '" HOSTCUDA_PLANTED "' " +
      mistake + " 2>&1";
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  while (const size_t count = fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, count);
  pclose(pipe);
  return text;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
bool race(const std::string& text) { return has(text, "ThreadSanitizer: data race"); }
bool bad_address(const std::string& text) { return has(text, "AddressSanitizer: "); }
bool wrong(const std::string& text) { return has(text, "wrong results"); }

}  // namespace

TEST_CASE("hostcuda: a kernel without mistakes is left alone") {
  for (const Schedule schedule : hostcuda::kSchedules)
    for (const char* mistake : {"none", "none_in_sum"}) {
      INFO(mistake << ", " << name_of(schedule));
      CHECK(run(mistake, schedule) == "unnoticed\n");
      CHECK(run(mistake, schedule, 3) == "unnoticed\n");
    }
}

TEST_CASE("hostcuda: a missing barrier before shared memory is read") {
  for (const Schedule schedule : {Schedule::kForward, Schedule::kReverse, Schedule::kWarp}) {
    INFO(name_of(schedule));
    const std::string text = run("no_barrier_before_reading", schedule);
    CAPTURE(text);
    CHECK((wrong(text) || bad_address(text)));
  }
  if (kTsan)
    for (const Schedule schedule : hostcuda::kSchedules) CHECK(race(run("no_barrier_before_reading", schedule)));
}

TEST_CASE("hostcuda: a missing barrier before shared memory is overwritten") {
  const std::string text = run("no_barrier_after_reading", Schedule::kWarp);
  CAPTURE(text);
  CHECK((wrong(text) || bad_address(text)));
  if (kTsan)
    for (const Schedule schedule : hostcuda::kSchedules) CHECK(race(run("no_barrier_after_reading", schedule)));
}

TEST_CASE("hostcuda: a wait for too few groups of copies") {
  for (const Schedule schedule : hostcuda::kSchedules) {
    const std::string text = run("waits_for_too_few_groups", schedule);
    CAPTURE(text);
    CHECK((kAsan ? bad_address(text) : wrong(text)));
  }
}

TEST_CASE("hostcuda: accesses outside shared memory") {
  const std::string copies = run("copies_out_of_bounds", Schedule::kForward);
  CHECK(has(copies, "fault: kernel gemm, thread "));
  CHECK(has(copies, "cp.async outside shared memory, at 16384 of 16384 bytes"));
  if (kAsan) CHECK(bad_address(run("reads_out_of_bounds", Schedule::kForward)));
}

TEST_CASE("hostcuda: a lane that stays away from a shuffle") {
  for (const Schedule schedule : hostcuda::kSchedules) {
    const std::string text = run("divergent_shuffle", schedule);
    CAPTURE(text);
    CHECK(has(text, "fault: kernel sum, deadlock: in block ("));
    CHECK(has(text, "waits in __shfl_xor_sync at problems.h:"));
    CHECK(has(text, "where 31 have come; "));
  }
  CHECK(has(run("partial_mask", Schedule::kForward), "has the mask 0000ffff: only whole warps are modelled"));
}

TEST_CASE("hostcuda: barriers that not all threads of the block reach") {
  for (const Schedule schedule : hostcuda::kSchedules) {
    const std::string half = run("divergent_barrier", schedule), early = run("barrier_after_exit", schedule),
                      two = run("two_barriers", schedule);
    CAPTURE(half, early, two);
    for (const std::string& text : {half, early})
      CHECK((has(text, "in __syncthreads at problems.h:") || has(text, "threads of its block have ended")));
    CHECK(has(two, "it comes to __syncthreads at problems.h:"));
    for (const std::string& text : {half, early, two}) CHECK(has(text, "fault: kernel sum, thread "));
  }
}

TEST_CASE("hostcuda: races that only ThreadSanitizer sees") {
  if (!kTsan) return;
  for (const Schedule schedule : hostcuda::kSchedules) {
    INFO(name_of(schedule));
    CHECK(race(run("no_syncwarp", schedule)));
    CHECK(race(run("plain_across_blocks", schedule)));
    // Two accesses at the very same time can escape ThreadSanitizer, now and then, where threads really are parallel.
    bool seen = false;
    for (int attempt = 0; attempt < 3 && !seen; ++attempt) seen = race(run("plain_across_blocks", schedule, 3));
    CHECK(seen);
    CHECK(race(run("no_fence", schedule)));
    CHECK(race(run("two_writers", schedule)));
  }
}
