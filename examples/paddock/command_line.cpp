#include "command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <sstream>

#include "common.h"

namespace cli {
namespace {

const CLI::Validator kNotEmpty(
    [](std::string& value) -> std::string { return value.empty() ? "must not be empty" : ""; }, "");

const CLI::Validator kOutputFile(
    [](std::string& value) -> std::string {
      if (value.empty()) return "must not be empty";
      if (value != "-") return "";
      return "'-': must be a file, since stdout carries other output; /dev/stderr is one, too";
    },
    "");

void refuse_unknown_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::string names;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == argv[1]) return;
    names += " " + command->get_name();
  }
  throw UsageError(fmt::format("there is no command '{}'; there are:{}", argv[1], names));
}

/// CLI11 2.1 never comes past an argument without a character that is no option's value: it takes
/// it for the name of a group of options.
void refuse_empty_arguments(const CLI::App& app, int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (*argv[i] != 0) continue;
    bool is_value = false;
    for (const CLI::App* command : app.get_subcommands({})) {
      if (command->get_name() != argv[1]) continue;
      const CLI::Option* option = command->get_option_no_throw(argv[i - 1]);
      is_value = option != nullptr && option->get_items_expected_max() > 0;
    }
    if (is_value) continue;
    throw UsageError(fmt::format("argument {} is empty, and no option takes it; leave it out", i));
  }
}

/// What CLI11 says, and what the option takes where a value is none of that.
std::string describe(const CLI::App& app, const CLI::ParseError& error) {
  const std::string message = error.what();
  const std::string prefix = "Could not convert: ";
  if (!message.starts_with(prefix)) {
    const auto commands = app.get_subcommands();  // those given
    const std::string command = commands.empty() ? "" : commands[0]->get_name() + " ";
    return fmt::format("{} (see paddock {}--help)", message, command);
  }
  const std::string name = message.substr(prefix.size(), message.find(" = ") - prefix.size());
  const std::string value = message.substr(message.find(" = ") + 3);
  std::string type = "a value of its kind";
  for (const CLI::App* command : app.get_subcommands()) {
    const CLI::Option* option = command->get_option_no_throw(name);
    if (option == nullptr) continue;
    type = option->get_type_name().starts_with("FLOAT") ? "a number" : "a whole number in range";
  }
  return fmt::format("{} {}: must be {}", name, value, type);
}

/// Help and the version, on stdout.
int show(const CLI::App& app, const CLI::Success& wanted) {
  std::ostringstream text;
  const int code = app.exit(wanted, text, text);
  print(text.str());
  return code;
}

}  // namespace

Option Option::required() {
  option_->required();
  return *this;
}
Option Option::shows_default() {
  option_->capture_default_str();
  return *this;
}
Option Option::not_empty() {
  option_->check(kNotEmpty);
  return *this;
}
Option Option::output_file() {
  option_->check(kOutputFile);
  return *this;
}
Option Option::split_at_commas() {
  option_->delimiter(',');
  return *this;
}
Option Option::may_repeat() {
  option_->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return *this;
}
Option Option::one_at_a_time() {
  option_->allow_extra_args(false);
  return *this;
}
Option Option::excludes(Option other) {
  option_->excludes(other.option_);
  return *this;
}
Option Option::needs(Option other) {
  option_->needs(other.option_);
  return *this;
}

Option Options::add(const char* names, std::string& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}
Option Options::add(const char* names, int& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}
Option Options::add(const char* names, int64_t& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}
Option Options::add(const char* names, double& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}
Option Options::add(const char* names, std::optional<int>& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}
Option Options::add(const char* names, std::optional<int64_t>& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}
Option Options::add(const char* names, std::vector<std::string>& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}
Option Options::add(const char* names, std::vector<int>& value, const char* help) {
  return Option(app_->add_option(names, value, help));
}

void Options::add_flag(const char* names, bool& value, const char* help) {
  app_->add_flag(names, value, help);
}

Options Options::one_of(const char* title) {
  CLI::App* group = app_->add_option_group(title);
  group->require_option(1);
  return Options(group);
}

void Command::runs(std::function<int()> work) {
  app_->callback([work = std::move(work), &code = exit_code_] { code = work(); });
}

void Command::before(std::function<void()> work) { app_->parse_complete_callback(std::move(work)); }

CommandLine::CommandLine(const char* description, const char* version)
    : app_(std::make_unique<CLI::App>(description, "paddock")) {
  app_->set_version_flag("--version", version);
  app_->require_subcommand(1);
}

CommandLine::~CommandLine() = default;

Command CommandLine::add(const char* name, const char* help) {
  return {app_->add_subcommand(name, help), exit_code_};
}

std::vector<Command> CommandLine::commands() {
  std::vector<Command> all;
  for (CLI::App* command : app_->get_subcommands([](const CLI::App*) { return true; })) {
    all.emplace_back(command, exit_code_);
  }
  return all;
}

int CommandLine::run(int argc, char** argv) {
  refuse_unknown_command(*app_, argc, argv);
  refuse_empty_arguments(*app_, argc, argv);
  try {
    app_->parse(argc, argv);
  } catch (const CLI::Success& e) {
    return show(*app_, e);
  } catch (const CLI::ParseError& e) {
    throw UsageError(describe(*app_, e));
  }
  return exit_code_;
}

}  // namespace cli
