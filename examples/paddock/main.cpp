// paddock: the command line tool. Exit codes: 0 ok, 1 run-time failure, 2 wrong usage, 130
// interrupted.
#include <fmt/format.h>

#include <csignal>

#include "common.h"

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
  try {
    refuse_unknown_command(app, argc, argv);
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForAllHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    fmt::print(stderr, "paddock: {} (see paddock --help)\n", e.what());
    return 2;
  } catch (const cli::UsageError& e) {
    fmt::print(stderr, "paddock: {}\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "paddock: error: {}\n", e.what());
    return 1;
  }
  return cli::InterruptGuard::interrupted() ? 130 : exit_code;
}
