// Conformance of everything that kernels assume of a device: instructions, conversions, random draws. What must come
// out, what the host models give and what the device gives agree to the bit, or within a stated bound.
//
//   gpu_conformance [--json FILE] [--models]     --models: leave the device alone
//
// Exit code: 0 all passed, 1 something failed, 77 no device (1 where FLASHNCE_REQUIRE_GPU=1); then only the models were
// compared, and nothing is PASS.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "gpu/jobs.h"
#include "gpu/report.h"
#include "math/hd.h"

namespace fnce::conformance {
namespace {

using gpu::Report, gpu::Status;

Words run_on_model(const Job& job) {
  Words results(job.results, ~0u);
  char message[512] = "";
  if (fnce_conformance_model(&job, results.data(), message, sizeof message) != 0)
    throw std::runtime_error(std::string("the harness: ") + message);
  return results;
}

uint32_t with_one_nan(uint32_t word, Format format) {
  const auto one = [](uint32_t half, uint32_t infinity) { return (half & 0x7fffu) > infinity ? 0x7fffu : half; };
  if (format == Format::kWords) return (word & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : word;
  const uint32_t infinity = format == Format::kHalves ? 0x7c00u : 0x7f80u;
  return one(word & 0xffffu, infinity) | one(word >> 16, infinity) << 16;
}

bool same(const Job& job, size_t i, uint32_t got) {
  if (!job.want.empty()) {
    // Words of draws and movers are no floats.
    const bool exact = job.check != Check::kMap;
    return exact ? got == job.want[i] : with_one_nan(got, job.format) == with_one_nan(job.want[i], job.format);
  }
  const double value = static_cast<double>(bits_float(got)), exact = job.exact[i];
  if (std::isnan(exact)) return std::isnan(value);
  return std::isinf(exact) ? value == exact : std::fabs(value - exact) <= job.bound[i];
}

std::string text(const char* format, auto... values) {
  std::string line(static_cast<size_t>(std::snprintf(nullptr, 0, format, values...)), '\0');
  std::snprintf(line.data(), line.size() + 1, format, values...);
  return line;
}

// "" or what differs.
std::string difference(const Job& job, const Words& got, const char* who) {
  size_t bad = 0, first = 0;
  for (size_t i = got.size(); i-- > 0;)
    if (!same(job, i, got[i])) ++bad, first = i;
  if (bad == 0) return "";
  const std::string expected =
      job.want.empty() ? text("%.9g within %.3g", job.exact[first], job.bound[first]) : text("%08x", job.want[first]);
  return text("%s: %zu of %zu words differ, first word %zu: %08x (%.9g), expected %s", who, bad, got.size(), first,
              got[first], static_cast<double>(bits_float(got[first])), expected.c_str());
}

struct Errors {
  double largest = 0, squares = 0, mean = 0;
};

// In units of job.unit.
template <class Values>
Errors errors_of(const Job& job, const Values& value_of) {
  Errors errors;
  size_t count = 0;
  for (size_t i = 0; i < job.exact.size(); ++i) {
    if (!std::isfinite(job.exact[i])) continue;
    const double error = (value_of(i) - job.exact[i]) / job.unit[i];
    errors.largest = std::fmax(errors.largest, std::fabs(error));
    errors.squares += error * error;
    errors.mean += error;
    ++count;
  }
  errors.squares = std::sqrt(errors.squares / static_cast<double>(count));
  errors.mean /= static_cast<double>(count);
  return errors;
}

void measure(Report& report, const Job& job, const Words& got) {
  if (job.exact.empty() || !job.want.empty()) return;
  const Errors ours = errors_of(job, [&](size_t i) { return static_cast<double>(bits_float(got[i])); });
  report.number(job.name + ", largest error", ours.largest);
  report.number(job.name + ", rms error", ours.squares);
  report.number(job.name + ", mean error", ours.mean);
  if (job.single.empty()) return;
  const Errors single = errors_of(job, [&](size_t i) { return static_cast<double>(job.single[i]); });
  report.number(job.name + ", rms error over float32's", ours.squares / single.squares);
}

// How much of the sums the model of the matrix units has to the bit: a hypothesis of others' that a device confirms or
// does not.
void measure_model(Report& report, const Job& job, const Words& got, const Words& model) {
  if (job.check != Check::kProducts || !job.want.empty()) return;
  size_t same = 0;
  for (size_t i = 0; i < got.size(); ++i) same += got[i] == model[i];
  report.number(job.name + ", share with the model's bits",
                static_cast<double>(same) / static_cast<double>(got.size()));
}

void run(Report& report, const Job& job, bool device, bool has_sm80) {
  std::string wrong;
  if (device && !has_sm80 && needs_sm80(job))
    return report.check(job.name, Status::kSkip,
                        "compute capability 8.0 has it, and kernels/engines/sm80 alone uses it");
  try {
    const Words model = job.on_model ? run_on_model(job) : Words();
    if (job.on_model) wrong = difference(job, model, "model");
    if (device) {
      const Words got = run_on_device(job);
      const std::string bad = difference(job, got, "device");
      wrong += (wrong.empty() || bad.empty() ? "" : "; ") + bad;
      measure(report, job, got);
      if (job.on_model) measure_model(report, job, got, model);
    }
  } catch (const std::exception& error) {
    wrong = error.what();
  }
  report.check(job.name, !wrong.empty() ? Status::kFail : device ? Status::kPass : Status::kSkip, wrong);
}

int conformance(const char* json, bool models) {
  const DeviceName found = models ? DeviceName{"", "--models was given"} : find_device();
  const bool device = !found.name.empty();
  if (device) setenv("FNCE_HOSTCUDA_MATRIX_UNITS", found.major >= 9 ? "hopper" : "ampere", 0);
  Report report(json, found.name);
  for (const Job& job : all_jobs(device)) run(report, job, device, found.major >= 8);
  if (!device) std::printf("SKIP  no device (%s): only the models were compared\n", found.reason.c_str());
  std::printf("%d checks, %d failed\n", report.checks(), report.failed());
  // --models asks for no device.
  return report.failed() ? 1 : device ? 0 : models ? 77 : gpu::no_device_code();
}

}  // namespace
}  // namespace fnce::conformance

int main(int argc, char** argv) {
  const char* json = nullptr;
  bool models = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0 && i + 1 < argc)
      json = argv[++i];
    else if (std::strcmp(argv[i], "--models") == 0)
      models = true;
    else
      return std::fprintf(stderr, "usage: gpu_conformance [--json FILE] [--models]\n"), 1;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    return fnce::conformance::conformance(json, models);
  } catch (const std::exception& error) {
    std::printf("FAIL  %s\n", error.what());
    return 1;
  }
}
