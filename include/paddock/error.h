// The one exception type that crosses the library's edge.
#pragma once

#include <stdexcept>
#include <string>

#include "paddock/export.h"

namespace paddock {

/// What kind of trouble an Error reports. Messages carry the details: the thing, its value, the
/// fix.
enum class ErrorCode {
  kInvalidArgument,  ///< an option, a policy or a call is wrong; nothing was changed
  kNotFound,         ///< a file, a tensor or a name does not exist
  kIo,               ///< the operating system refused a read or a map
  kBadFile,          ///< a file's contents contradict its format
  kUnsupported,      ///< well-formed, but nothing this library can run
  kOutOfMemory,      ///< a budget or the machine's memory is too small; needed and available given
  kCancelled,        ///< a callback or cancel() asked to stop
  kDevice,           ///< a device is missing, too old or failed
  kInternal,         ///< a broken invariant of the library itself; please report it
};

/// Stable lower-case name of a code, such as "bad_file".
PADDOCK_API const char* error_code_name(ErrorCode code) noexcept;

/// Every failure of the library is thrown as this type. It never prints, exits or aborts.
class PADDOCK_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace paddock
