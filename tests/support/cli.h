// Runs the command line tool as a user does.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "support/temporary_folder.h"

namespace paddock::test {

struct Outcome {
  int code;
  std::string out, err;
};

inline Outcome run(const std::string& program, const std::string& arguments,
                   const std::string& input = "") {
  const TemporaryFolder folder;
  const std::string out = folder.path() + "/out";
  const std::string err = folder.path() + "/err";
  const std::string in = folder.write("in", input);
  // What the arguments redirect themselves comes later and wins.
  const std::string command = program + " <" + in + " >" + out + " 2>" + err + " " + arguments;
  const int status = std::system(command.c_str());
  const auto read = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(file), {}};
  };
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read(out), read(err)};
}

inline Outcome paddock(const std::string& arguments, const std::string& input = "") {
  return run(PADDOCK_CLI, arguments, input);
}

/// The tool refuses with `code`, nothing on stdout and one line that holds `names`.
inline void expect_refusal(const std::string& arguments, int code, const std::string& names) {
  const Outcome o = paddock(arguments);
  EXPECT_EQ(o.code, code) << arguments << "\n" << o.err;
  EXPECT_EQ(o.out, "") << arguments;
  EXPECT_NE(o.err.find(names), std::string::npos) << arguments << "\n" << o.err;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
}

}  // namespace paddock::test
