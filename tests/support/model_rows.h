// Rows of docs/model-settings.md, each with what proves it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "model/config.h"
#include "paddock/error.h"
#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"
#include "support/vocabulary_gguf.h"

namespace paddock::test {

struct Row {
  const char* key;
  std::function<void()> check;
};

/// The rows of model_files_rows.cpp.
const std::vector<Row>& container_rows();
const std::vector<Row>& gguf_tokenizer_rows();
const std::vector<Row>& folder_rows();
void check_tied_embeddings();

inline testing::AssertionResult has(const std::string& text,
                                    std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    if (text.find(part) == std::string::npos) {
      return testing::AssertionFailure() << "no \"" << part << "\" in: " << text;
    }
  }
  return testing::AssertionSuccess();
}

/// The one warning has all of `parts`.
inline testing::AssertionResult warns(const std::vector<std::string>& warnings,
                                      std::initializer_list<const char*> parts) {
  if (warnings.size() != 1) {
    return testing::AssertionFailure() << warnings.size() << " warnings instead of one";
  }
  return has(warnings[0], parts);
}
inline testing::AssertionResult warns(const LlamaConfig& config,
                                      std::initializer_list<const char*> parts) {
  return warns(config.warnings, parts);
}

/// The message of the Error that `action` throws; fails and is empty if it throws none.
inline std::string refusal_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "was accepted";
  return "";
}

}  // namespace paddock::test
