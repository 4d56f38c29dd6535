// What says, when it is compiled, that a list of names and the number of values of an enum agree.
#pragma once

#include <cstdint>

namespace paddock {

/// Whether `name_of`, a switch without a default that returns null behind it, names the values 0 to
/// n - 1 and no more. The compiler asks the switch for a new value, and this then asks for another
/// number: who counts or stores values by it cannot be forgotten.
template <typename Enum>
constexpr bool names_exactly(int32_t n, const char* (*name_of)(Enum) noexcept) {
  for (int32_t i = 0; i < n; ++i) {
    if (name_of(static_cast<Enum>(i)) == nullptr) return false;
  }
  return name_of(static_cast<Enum>(n)) == nullptr;
}

/// For a value that a host has made up.
constexpr const char* name_or_unknown(const char* name) {
  return name == nullptr ? "unknown" : name;
}

}  // namespace paddock
