// paddock generate: completes a raw prompt, streaming, or many at once (parallel.cpp).
#include <fmt/format.h>

#include "advice.h"
#include "answer_json.h"
#include "common.h"
#include "kv_notes.h"
#include "kv_report.h"
#include "parallel.h"

namespace cli {
namespace {

struct Args {
  EngineArgs engine;
  SamplingArgs sampling;
  KvReportArgs report;
  std::string prompt, file, parallel;
  std::optional<int> sequences;
  int max_tokens = 128;
  std::vector<std::string> stop;
  std::optional<int> logprobs;
  double timeout = 0;
  bool no_special = false, ignore_stop = false;
};

void check_usage(const Args& args) {
  if (args.max_tokens < 0) {
    throw UsageError(fmt::format("-n {}: must be 0 or more", args.max_tokens));
  }
  if (!(args.timeout >= 0 && args.timeout <= 1e9)) {
    throw UsageError(fmt::format("--timeout {}: must be from 0 (none) to 1e9", args.timeout));
  }
  if (args.logprobs && *args.logprobs < 0) {
    throw UsageError(fmt::format("--logprobs {}: must be 0 or more", *args.logprobs));
  }
  if (args.logprobs && !args.engine.json && args.parallel.empty()) {
    throw UsageError(fmt::format("--logprobs {}: needs --json, which prints them", *args.logprobs));
  }
  if (args.sequences && args.parallel.empty()) {
    throw UsageError(fmt::format("--sequences {}: needs --parallel", *args.sequences));
  }
  if (args.sequences && (*args.sequences < 1 || *args.sequences > paddock::kMaxSequences)) {
    throw UsageError(fmt::format("--sequences {}: must be from 1 to {}", *args.sequences,
                                 paddock::kMaxSequences));
  }
}

paddock::GenerateOptions generate_options(const Args& args) {
  paddock::GenerateOptions options;
  options.sampling = args.sampling.options();
  options.max_tokens = args.max_tokens;
  options.stop = args.stop;
  options.logprobs = args.logprobs;
  options.ignore_stop_tokens = args.ignore_stop;
  return options;
}

int run(const Args& args) {
  check_usage(args);
  paddock::EngineOptions engine_options = args.engine.engine_options();
  paddock::GenerateOptions options = generate_options(args);
  if (!args.parallel.empty()) {
    return run_parallel({.file = args.parallel,
                         .sequences = args.sequences.value_or(8),
                         .parse_special = !args.no_special,
                         .timeout = args.timeout,
                         .defaults = options},
                        args.engine, args.sampling, args.report);
  }

  const auto model = args.engine.load_model();
  const std::vector<paddock::TokenId> tokens =
      encode(*model->tokenizer(), args.prompt, args.file,
             {.add_bos = true, .parse_special = !args.no_special});
  EventFile events(args.report.events, engine_options);
  TraceFile trace(args.report.trace, engine_options);
  const auto engine = make_engine(model, engine_options);
  events.begin(*engine);
  trace.begin();
  args.sampling.report_seed(options.sampling);
  const InterruptGuard guard(*engine);
  options.deadline = deadline_in(args.timeout);
  if (!args.engine.json) {
    options.on_token = [](const paddock::TokenEvent& event) {
      print(event.text);
      return !InterruptGuard::interrupted();
    };
  }
  // A session keeps its pages after the last token, so that the table shows what is held.
  const paddock::SessionId session = engine->open_session();
  std::optional<Watch> watch;
  if (args.report.watch) watch.emplace(*engine);
  const paddock::GenerateResult result = engine->generate(session, tokens, options);
  watch.reset();
  const paddock::KvStats stats = engine->kv_stats();

  if (args.engine.json) {
    print_json(answer_json(result, options.sampling.seed, args.logprobs.has_value(), &stats));
  } else {
    print("\n");
  }
  events.close();
  trace.check();
  if (args.report.stats) note(fmt::format("\n{}", stats_text(*engine)));
  if (result.finish_reason == paddock::FinishReason::kError) {
    complain(fmt::format("error: {}", result.error));
    return 1;
  }
  for (const std::string& line :
       {KvNotes(*engine, "--kv-policy").news(engine->session_length(session)),
        lack_of_room(result, *engine)}) {
    if (!line.empty()) note(fmt::format("paddock: {}\n", line));
  }
  return 0;
}

}  // namespace

void add_generate(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command = tool.add("generate", "complete a raw prompt");
  args->engine.add_to(command);
  Options input = command.one_of("prompt");
  input.add("-p,--prompt", args->prompt, "the prompt");
  input.add("-f,--file", args->file, "a file that holds the prompt, byte for byte; '-' is stdin")
      .not_empty();
  input
      .add("--parallel", args->parallel, "many prompts at once: a file of JSON lines; '-' is stdin")
      .not_empty();
  command.add("--sequences", args->sequences, "with --parallel: most at once (default 8)");
  command.add("-n,--predict", args->max_tokens, "most tokens to generate").shows_default();
  args->sampling.add_to(command);
  command.add("--stop", args->stop, "a string that ends the text; may repeat")
      .may_repeat()
      .not_empty();
  command.add("--logprobs", args->logprobs, "log-probabilities of the N best tokens");
  command.add("--timeout", args->timeout, "seconds until the text is cut off");
  command.add_flag("--no-special", args->no_special, "special-token text is plain text");
  command.add_flag("--ignore-eos", args->ignore_stop, "run on through stop tokens");
  args->report.add_to(command);
  command.runs([args] { return run(*args); });
}

}  // namespace cli
