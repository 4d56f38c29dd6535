// paddock: the command line tool. Exit codes: 0 ok, 1 run-time failure, 2 wrong usage, 130
// interrupted.
#include <fmt/format.h>

#include <csignal>
#include <sstream>

#include "advice.h"
#include "common.h"
#include "log.h"

namespace {

void refuse_unknown_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::string names;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == argv[1]) return;
    names += " " + command->get_name();
  }
  throw cli::UsageError(fmt::format("there is no command '{}'; there are:{}", argv[1], names));
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
  cli::print(text.str());
  return code;
}

/// Parses and does what is asked for.
int run(CLI::App& app, int argc, char** argv, const int& exit_code) {
  try {
    refuse_unknown_command(app, argc, argv);
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& e) {
      return show(app, e);
    }
  } catch (const CLI::ParseError& e) {
    cli::complain(describe(app, e));
    return 2;
  } catch (const cli::UsageError& e) {
    cli::complain(e.what());
    return 2;
  } catch (const paddock::Error& e) {
    if (cli::InterruptGuard::interrupted()) return 130;
    cli::complain("error: " + cli::describe(e));
    return 1;
  } catch (const std::exception& e) {
    if (cli::InterruptGuard::interrupted()) return 130;
    cli::complain(fmt::format("error: {}", e.what()));
    return 1;
  }
  return cli::InterruptGuard::interrupted() ? 130 : exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app{"Runs Llama 3 decoders over a paged KV cache with pluggable eviction", "paddock"};
  app.set_version_flag("--version", paddock::version());
  app.require_subcommand(1);
  int exit_code = 0;
  cli::add_generate(app, exit_code);
  cli::add_chat(app, exit_code);
  cli::add_tokenize(app, exit_code);
  cli::add_logits(app, exit_code);
  cli::add_perplexity(app, exit_code);
  cli::add_inspect(app, exit_code);
  cli::add_bench(app, exit_code);
  cli::Log log;
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    log.add_to(*command);
    command->parse_complete_callback([&log] { log.begin(); });
  }
  const int code = run(app, argc, argv, exit_code);
  try {
    log.end();
  } catch (const paddock::Error& e) {
    cli::complain(fmt::format("error: {}", e.what()));
    return code == 0 ? 1 : code;
  }
  return code;
}
