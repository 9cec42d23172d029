// Prints digests of what the loaded library computes, one line a case: its words, a bar, and name=digest of every array
// that it wrote. tools/compare_bits.py runs it with two libraries and compares the lines. It needs nothing but the
// public header's functions, so that an older or a newer library can be loaded in place of its own.
//
// The environment chooses what is run: FNCE_TEST_DEVICE, FNCE_TEST_HOSTCUDA, FNCE_CPU_ISA, FNCE_BACKEND. The program
// ends with 77 where the library has no such thing on this machine.
#include <dlfcn.h>

#include <cstdio>
#include <exception>

#include "bits/cases.h"
#include "flashnce/flashnce.h"
#include "support/problem.h"

namespace {

constexpr int kSkipped = 77;

// The sentence with which a plan is refused whatever its problem, "" if it is not.
std::string why_not() {
  try {
    const support::Plan plan(support::make_case(FNCE_PRESET_MOCO, 1, 1, 8).problem);
  } catch (const std::exception& refused) {
    return refused.what();
  }
  return "";
}

// Which library is loaded, so that nobody compares one with itself by accident.
void print_library() {
  Dl_info info = {};
  dladdr(reinterpret_cast<void*>(&fnce_version), &info);
  std::printf("library %s\n", info.dli_fname == nullptr ? "?" : info.dli_fname);
}

// A refusal is a result too: its status, without the sentence, whose words may change.
void print_case(const std::string& words, const std::function<std::string()>& digests) {
  std::string text;
  try {
    text = digests();
  } catch (const std::exception& error) {
    const std::string what = error.what();
    text = " refused=" + what.substr(0, what.find(':'));
  }
  std::printf("%s |%s\n", words.c_str(), text.c_str());
  std::fflush(stdout);
}

}  // namespace

int main() {
  print_library();
  if (const std::string reason = why_not(); !reason.empty()) {
    std::fprintf(stderr, "%s\n", reason.c_str());
    return kSkipped;
  }
  bits::loss_cases(print_case);
  bits::other_cases(print_case);
  return 0;
}
