// fail(): throw paddock::Error with a formatted message.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "paddock/error.h"

namespace paddock {

inline constexpr const char* kNoMemory =
    "the process is out of memory; lower the context, the KV budget or the batch size";
/// kNoMemory for a result; empty where there is no memory for that either.
inline std::string no_memory() noexcept {
  try {
    return kNoMemory;
  } catch (const std::bad_alloc&) {
    return {};
  }
}

template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Error `code`, with all three, unless least <= value <= most.
inline void check_range(std::string_view name, int64_t value, int64_t least, int64_t most,
                        ErrorCode code = ErrorCode::kInvalidArgument) {
  if (value >= least && value <= most) return;
  fail(code, "{} is {}; it must be from {} to {}", name, value, least, most);
}

/// What std::bad_alloc becomes at the library's edge.
[[noreturn]] inline void fail_no_memory() { throw Error(ErrorCode::kOutOfMemory, kNoMemory); }

/// Runs fn at that edge.
template <typename Fn>
decltype(auto) at_the_edge(Fn&& fn) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    fail_no_memory();
  }
}

/// Runs a function of the host's, called `who`: what it throws but Error and std::bad_alloc is
/// refused as Error kInvalidArgument.
template <typename Fn>
decltype(auto) ask_host(const std::string& who, Fn&& fn) {
  try {
    return fn();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    fail(ErrorCode::kInvalidArgument, "{} threw: {}", who, e.what());
  } catch (...) {
    fail(ErrorCode::kInvalidArgument, "{} threw what is no std::exception", who);
  }
}

}  // namespace paddock
