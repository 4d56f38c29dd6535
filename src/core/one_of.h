// Lists of what there is, for sentences that refuse something else.
#pragma once

#include <string>
#include <vector>

namespace paddock {

/// "f32, f16 or bf16".
inline std::string one_of(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    out += (i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + names[i];
  }
  return out;
}

}  // namespace paddock
