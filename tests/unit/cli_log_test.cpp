// What the tool's log holds, and where it goes.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>

#include "support/cli.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Writes `value` over the one of a metadata key: behind its name and its type.
template <typename Value>
void patch(std::string& gguf, const std::string& key, Value value) {
  const size_t at = gguf.find(key);
  ASSERT_NE(at, std::string::npos) << key;
  std::memcpy(gguf.data() + at + key.size() + 4, &value, sizeof(value));
}

class CliLog : public testing::Test {
 protected:
  CliLog() {
    // Long, and without the tensor that Llama 3.1 needs for it: a warning.
    std::string gguf = bytes_of(std::string(PADDOCK_TEST_DATA) + "/golden/gqa1-Q8_0.gguf");
    patch(gguf, "llama.context_length", uint32_t{16384});
    patch(gguf, "llama.rope.freq_base", 500000.0F);
    model_ = folder_.write("model.gguf", gguf);
  }
  std::string logits(const std::string& model) const {
    return "logits -m " + model + " --tokens 1 -c 64 -o " + folder_.path() + "/l.npy ";
  }
  std::string logits() const { return logits(model_); }
  std::string log() const { return bytes_of(folder_.path() + "/log"); }
  std::string to_file() const { return " --log-file " + folder_.path() + "/log "; }

  TemporaryFolder folder_;
  std::string model_;
};

TEST_F(CliLog, WarningsComeOnceOnStderr) {
  const Outcome o = paddock(logits());
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.err.rfind("paddock: warning: " + model_ + ": a Llama 3.1-like file", 0), 0U) << o.err;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  EXPECT_EQ(paddock(logits() + "--log-level warn").err, o.err);
  EXPECT_EQ(paddock(logits() + "--log-level off").err, "");
}

TEST_F(CliLog, AContextBeyondTheTrainedOneIsAWarning) {
  const std::string line = "paddock: warning: the context of 100000 positions is longer than the ";
  const std::string command = "logits -m " + model_ + " --tokens 1 -o " + folder_.path() + "/l.npy";
  const Outcome longer = paddock(command + " -c 100000");
  EXPECT_EQ(longer.code, 0);
  EXPECT_NE(longer.err.find(line + "16384"), std::string::npos) << longer.err;
  EXPECT_EQ(paddock(command).err.find("the context of"), std::string::npos);
}

TEST_F(CliLog, TheLevelOpensMore) {
  for (const char* level : {"info", "debug"}) {
    const Outcome o = paddock(logits() + "--log-level " + level);
    EXPECT_NE(o.err.find("paddock: info: loaded " + model_), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("paddock: info: engine: "), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("paddock: warning: "), std::string::npos) << o.err;
  }
}

TEST_F(CliLog, AFileTakesTheLogAndStderrKeepsTheWarnings) {
  const Outcome o = paddock(logits() + "--log-level info" + to_file());
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  EXPECT_EQ(o.err.rfind("paddock: warning: ", 0), 0U) << o.err;
  const std::string when = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d\\.\\d{3} ";
  const std::string expected = when + "warning: [^\\n]+\\n" + when + "info: loaded [^\\n]+\\n" +
                               when + "info: engine: [^\\n]+\\n";
  EXPECT_TRUE(std::regex_match(log(), std::regex(expected))) << log();
  // The next run's lines follow, and so do the tool's own errors.
  const std::string before = log();
  expect_refusal(logits(folder_.path() + "/none") + to_file(), 1, "/none");
  ASSERT_EQ(log().rfind(before, 0), 0U);
  EXPECT_TRUE(std::regex_match(log().substr(before.size()),
                               std::regex(when + "error: [^\\n]*/none[^\\n]*\\n")))
      << log();
}

TEST_F(CliLog, AMessageIsOneLine) {
  const std::string odd = folder_.path() + "/two\nlines.gguf";
  std::filesystem::copy_file(model_, odd);
  const Outcome o = paddock(logits("'" + odd + "'") + to_file());
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  EXPECT_NE(o.err.find("/two\\x0alines.gguf: a Llama"), std::string::npos) << o.err;
  EXPECT_NE(log().find("/two\\x0alines.gguf: a Llama"), std::string::npos) << log();
}

TEST_F(CliLog, WhatCannotBeIsRefused) {
  for (const char* command :
       {"generate -p a", "chat", "tokenize -p a", "perplexity -f x", "bench"}) {
    const std::string with_model = std::string(command) + " -m " + model_;
    expect_refusal(with_model + " --log-level loud", 2,
                   "--log-level loud: must be debug, info, warn or off");
    expect_refusal(with_model + " --log-file ''", 2, "--log-file: must not be empty");
  }
  expect_refusal("inspect " + model_ + " --log-level ''", 2, "--log-level");
  const std::string missing = folder_.path() + "/missing";
  expect_refusal(logits() + "--log-file " + missing + "/log", 1,
                 "--log-file " + missing + "/log: cannot be written: No such");
  expect_refusal(logits() + "--log-file " + folder_.path(), 1, "cannot be written: Is a directory");
  EXPECT_FALSE(std::filesystem::exists(missing));
}

TEST_F(CliLog, AFullFileIsSaidOnce) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  const Outcome o = paddock(logits() + "--log-level info --log-file /dev/full");
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 2) << o.err;
  EXPECT_NE(o.err.find("\npaddock: error: --log-file /dev/full: not everything could be written: "),
            std::string::npos)
      << o.err;
}

}  // namespace
}  // namespace paddock::test
