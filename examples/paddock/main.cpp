// paddock: the command line tool. Exit codes: 0 ok, 1 run-time failure, 2 wrong usage, 130
// interrupted.
#include <fmt/format.h>

#include <csignal>

#include "advice.h"
#include "command_line.h"
#include "common.h"
#include "log.h"

namespace {

/// Parses and does what is asked for.
int run(cli::CommandLine& tool, int argc, char** argv) {
  int exit_code = 0;
  try {
    exit_code = tool.run(argc, argv);
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
  cli::CommandLine tool("Runs Llama 3 decoders over a paged KV cache with pluggable eviction",
                        paddock::version());
  cli::add_generate(tool);
  cli::add_chat(tool);
  cli::add_tokenize(tool);
  cli::add_logits(tool);
  cli::add_perplexity(tool);
  cli::add_inspect(tool);
  cli::add_bench(tool);
  cli::add_replay(tool);
  cli::add_trace(tool);
  cli::add_explain(tool);
  cli::add_doctor(tool);
  cli::add_plan(tool);
  cli::add_advise(tool);
  cli::Log log;
  for (cli::Command& command : tool.commands()) {
    log.add_to(command);
    command.before([&log] { log.begin(); });
  }
  const int code = run(tool, argc, argv);
  try {
    log.end();
  } catch (const paddock::Error& e) {
    cli::complain(fmt::format("error: {}", e.what()));
    return code == 0 ? 1 : code;
  }
  return code;
}
