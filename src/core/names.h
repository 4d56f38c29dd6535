// Names of what there is, and lists of them for sentences that refuse something else.
#pragma once

#include <new>
#include <string>
#include <vector>

#include "core/fail.h"

namespace paddock {

/// The names of a table's rows, in its order. Error kOutOfMemory.
template <typename Rows>
std::vector<std::string> names_of(const Rows& rows) try {
  std::vector<std::string> names;
  for (const auto& row : rows) names.emplace_back(row.name);
  return names;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

/// "f32, f16 or bf16".
inline std::string one_of(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    out += (i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + names[i];
  }
  return out;
}

}  // namespace paddock
