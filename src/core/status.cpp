#include "core/status.h"

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace fnce {
namespace {

// The storage is fixed, because reporting an error must not itself fail for want of memory.
thread_local char t_last_error[1024] = "";

}  // namespace

std::string to_text(int64_t value) { return std::to_string(value); }
std::string to_text(uint64_t value) { return std::to_string(value); }
std::string to_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

void invalid(const std::string& field, const std::string& value, const std::string& allowed) {
  throw StatusError(FNCE_INVALID_ARGUMENT, field + " is " + value + "; allowed: " + allowed);
}

void unsupported(const std::string& field, const std::string& value, const std::string& supported) {
  throw StatusError(FNCE_UNSUPPORTED, field + " is " + value + "; this version supports " + supported);
}

void check_range(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) invalid(field, to_text(value), to_text(low) + " .. " + to_text(high));
}

void require_pointer(const void* pointer, size_t alignment, const char* field, const char* expected) {
  if (pointer == nullptr) invalid(field, "NULL", expected);
  check_alignment(pointer, alignment, field);
}

void check_alignment(const void* pointer, size_t alignment, const char* field) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (address % alignment == 0) return;
  char text[32];
  std::snprintf(text, sizeof text, "0x%" PRIxPTR, address);
  invalid(field, text, "addresses that are multiples of " + std::to_string(alignment));
}

void set_last_error(const char* sentence) noexcept { std::snprintf(t_last_error, sizeof t_last_error, "%s", sentence); }

const char* last_error() noexcept { return t_last_error; }

const char* status_name(fnce_status status) noexcept {
  switch (status) {
    case FNCE_OK: return "FNCE_OK";
    case FNCE_INVALID_ARGUMENT: return "FNCE_INVALID_ARGUMENT";
    case FNCE_UNSUPPORTED: return "FNCE_UNSUPPORTED";
    case FNCE_NO_DEVICE: return "FNCE_NO_DEVICE";
    case FNCE_DEVICE_MISMATCH: return "FNCE_DEVICE_MISMATCH";
    case FNCE_WORKSPACE_TOO_SMALL: return "FNCE_WORKSPACE_TOO_SMALL";
    case FNCE_OUT_OF_MEMORY: return "FNCE_OUT_OF_MEMORY";
    case FNCE_DEVICE_ERROR: return "FNCE_DEVICE_ERROR";
    case FNCE_INTERNAL_ERROR: return "FNCE_INTERNAL_ERROR";
    default: return "unknown status";
  }
}

}  // namespace fnce
