// The tool's commands and their options, as --help lists them. The parser, CLI11, which takes long
// to compile, is known to command_line.cpp alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cli {

/// Wrong usage: exit 2 with one line.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What more there is to an option. Each call gives the same option back.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required();
  /// Help says what the value is where nobody gives one.
  Option shows_default();
  Option not_empty();
  /// A file to be written by a command whose stdout carries something else: not "-" either.
  Option output_file();
  /// Several values at once: "1,2,3".
  Option split_at_commas();
  /// May be given again, with one value each time.
  Option may_repeat();
  /// Of those that take several values: one each time, so that what follows is no value of it.
  Option one_at_a_time();
  Option excludes(Option other);
  Option needs(Option other);

 private:
  CLI::Option* option_;
};

/// Options of a command, or of a group of them. A value that nobody gives stays what it is; it has
/// to outlive the parsing.
class Options {
 public:
  explicit Options(CLI::App* app) : app_(app) {}

  /// `names`: "-n,--predict"; without dashes it is what stands by itself.
  Option add(const char* names, std::string& value, const char* help);
  Option add(const char* names, int& value, const char* help);
  Option add(const char* names, int64_t& value, const char* help);
  Option add(const char* names, double& value, const char* help);
  Option add(const char* names, std::optional<int>& value, const char* help);
  Option add(const char* names, std::optional<int64_t>& value, const char* help);
  Option add(const char* names, std::vector<std::string>& value, const char* help);
  Option add(const char* names, std::vector<int>& value, const char* help);
  void add_flag(const char* names, bool& value, const char* help);
  /// A group of which exactly one option must be given.
  Options one_of(const char* title);

 protected:
  CLI::App* app_;
};

class Command : public Options {
 public:
  Command(CLI::App* app, int& exit_code) : Options(app), exit_code_(exit_code) {}

  /// Does the work, once all options are known. Returns the exit code.
  void runs(std::function<int()> work);
  /// What comes before that.
  void before(std::function<void()> work);

 private:
  int& exit_code_;
};

class CommandLine {
 public:
  CommandLine(const char* description, const char* version);
  ~CommandLine();

  Command add(const char* name, const char* help);
  /// All commands so far, in order.
  std::vector<Command> commands();
  /// Does what is asked for. Returns the exit code. Errors: UsageError, and whatever the command
  /// throws.
  int run(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
  int exit_code_ = 0;  // of the command that ran
};

}  // namespace cli
