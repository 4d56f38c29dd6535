// The one exception type that crosses the library's edge.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

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

/// Settings that were computed to make work what was refused; those that are set go together. Each
/// changes the EngineOptions that were asked for: with_proposal() does.
struct Proposal {
  std::optional<uint64_t> budget_bytes{};      ///< KvOptions::budget_bytes, and no budget_share
  std::optional<uint64_t> max_budget_bytes{};  ///< KvOptions::max_budget_bytes
  std::optional<double> budget_share{};        ///< KvOptions::budget_share
  std::optional<std::string> policy{};  ///< KvOptions::policy. Alone, in a refusal of an engine,
                                        ///< its set_kv_policy() takes it too
  /// KvOptions::other_policies, all of them: one is another than was asked for.
  std::optional<std::vector<std::string>> other_policies{};
  std::optional<int64_t> context{};  ///< 0: leave it at its default
  std::optional<int32_t> batch_size{};
  std::optional<int32_t> max_sequences{};
  bool lowers = false;  ///< numbers are below what was asked for, not above
};

/// How a host calls the settings that proposals name.
struct SettingNames {
  std::string budget = "kv.budget_bytes", share = "kv.budget_share", policy = "kv.policy";
  std::string max_budget = "kv.max_budget_bytes";
  std::string others = "kv.other_policies";
  std::string context = "context", batch = "batch_size", sequences = "max_sequences";
  /// How bytes are written; the same or more. Null: as a plain number.
  std::function<std::string(uint64_t bytes)> size{};
};

/// "raise kv.budget_bytes to 9437184, or kv.policy h2o:96 fits now"; empty if there is none.
PADDOCK_API std::string to_text(std::span<const Proposal> proposals,
                                const SettingNames& names = {});

/// Every failure of the library is thrown as this type. It never prints, exits or aborts.
class PADDOCK_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message)
      : std::runtime_error(message), code_(code), problem_size_(message.size()) {}
  /// what() is the problem and, after it, the proposals as to_text() writes them.
  Error(ErrorCode code, const std::string& problem, std::vector<Proposal> proposals);

  ErrorCode code() const noexcept { return code_; }
  /// what() without the proposals, for a host that calls its settings by other names.
  std::string_view problem() const noexcept { return {what(), problem_size_}; }
  /// Each would have worked, the first the least change; none where nothing was found or computed.
  std::span<const Proposal> proposals() const noexcept {
    return proposals_ != nullptr ? std::span<const Proposal>(*proposals_)
                                 : std::span<const Proposal>();
  }

 private:
  ErrorCode code_;
  size_t problem_size_;
  std::shared_ptr<const std::vector<Proposal>> proposals_;  // shared: copying an Error throws not
};

}  // namespace paddock
