// The report of a program that runs on the device: a line as each result comes, and a JSON file that is written anew
// each time, so that a hang or a crash loses nothing.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

namespace fnce::gpu {

enum class Status { kPass, kSkip, kFail };

// As the inside of a JSON string.
inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + '"';
}

// The exit code of a program that found no device: skipped, or a failure where FLASHNCE_REQUIRE_GPU=1.
inline int no_device_code() {
  const char* required = std::getenv("FLASHNCE_REQUIRE_GPU");
  return required != nullptr && std::strcmp(required, "1") == 0 ? 1 : 77;
}

class Report {
 public:
  // `path` may be null: no file.
  Report(const char* path, std::string device) : path_(path ? path : ""), device_(std::move(device)) {}

  void check(const std::string& name, Status status, const std::string& detail) {
    const char* word = status == Status::kPass ? "PASS" : status == Status::kSkip ? "SKIP" : "FAIL";
    ++checks_count_;
    failed_ += status == Status::kFail;
    std::printf(detail.empty() ? "%s  %s\n" : "%s  %s: %s\n", word, name.c_str(), detail.c_str());
    checks_ += (checks_.empty() ? "\n  " : ",\n  ") + ("{\"name\": " + quoted(name)) + ", \"status\": \"" + word +
               "\", \"detail\": " + quoted(detail) + "}";
    write();
  }
  void number(const std::string& name, double value) {
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.6g", value);
    std::printf("      %s %s\n", name.c_str(), digits);
    numbers_ += (numbers_.empty() ? "\n  " : ",\n  ") + quoted(name) + ": " + (std::isfinite(value) ? digits : "null");
    write();
  }
  int checks() const { return checks_count_; }
  int failed() const { return failed_; }

 private:
  void write() const {
    if (path_.empty()) return;
    FILE* file = std::fopen(path_.c_str(), "w");
    if (file == nullptr) return;
    std::fprintf(file, "{\"device\": %s,\n \"checks\": [%s],\n \"numbers\": {%s}}\n",
                 device_.empty() ? "null" : quoted(device_).c_str(), checks_.c_str(), numbers_.c_str());
    std::fclose(file);
  }

  std::string path_, device_, checks_, numbers_;
  int checks_count_ = 0, failed_ = 0;
};

}  // namespace fnce::gpu
