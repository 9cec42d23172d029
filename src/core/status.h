// Errors inside the library are exceptions; they become a status code and the thread's last sentence at the C boundary
// (guard). Every sentence about a wrong value has one form: "<field> is <value>; allowed: <what>".
#pragma once
#include <flashnce/flashnce.h>

#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <utility>

namespace fnce {

class StatusError : public std::exception {
 public:
  StatusError(fnce_status code, std::string sentence) : code_(code), sentence_(std::move(sentence)) {}
  fnce_status code() const { return code_; }
  const char* what() const noexcept override { return sentence_.c_str(); }

 private:
  fnce_status code_;
  std::string sentence_;
};

std::string to_text(int64_t value);
std::string to_text(uint64_t value);
std::string to_text(double value);

// "<field> is <value>; allowed: <allowed>", as FNCE_INVALID_ARGUMENT.
[[noreturn]] void invalid(const std::string& field, const std::string& value, const std::string& allowed);
// "<field> is <value>; this version supports <supported>", as FNCE_UNSUPPORTED.
[[noreturn]] void unsupported(const std::string& field, const std::string& value, const std::string& supported);

// FNCE_INVALID_ARGUMENT unless low <= value <= high.
void check_range(const char* field, int64_t value, int64_t low, int64_t high);

// Pointer checks: NULL and alignment, as FNCE_INVALID_ARGUMENT.
void require_pointer(const void* pointer, size_t alignment, const char* field, const char* expected);
void check_alignment(const void* pointer, size_t alignment, const char* field);

// The sentence behind fnce_last_error(), one per thread.
void set_last_error(const char* sentence) noexcept;
const char* last_error() noexcept;

const char* status_name(fnce_status status) noexcept;

// Runs the body of a C entry point: no exception leaves the library.
template <class Body>
fnce_status guard(Body&& body) noexcept {
  try {
    body();
    return FNCE_OK;
  } catch (const StatusError& error) {
    set_last_error(error.what());
    return error.code();
  } catch (const std::bad_alloc&) {
    set_last_error("out of host memory");
    return FNCE_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    set_last_error(error.what());
    return FNCE_INTERNAL_ERROR;
  } catch (...) {
    set_last_error("an unknown exception inside the library");
    return FNCE_INTERNAL_ERROR;
  }
}

}  // namespace fnce
