// paddock chat: a conversation whose history stays in the cache; each turn feeds only its new
// tokens.
#include <fmt/format.h>
#include <unistd.h>

#include <functional>
#include <iostream>

#include "common.h"
#include "kv_report.h"

namespace cli {
namespace {

struct Args {
  EngineArgs engine;
  SamplingArgs sampling;
  KvReportArgs report;
  std::string system, prompt, template_name, date;
  int max_tokens = 512;
  bool single_turn = false;
};

class Conversation {
 public:
  Conversation(const Args& args, paddock::Engine& engine, const paddock::GenerateOptions& options)
      : args_(args),
        engine_(engine),
        options_(options),
        format_(engine.model().tokenizer(), chat_options(args)),
        session_(engine.open_session()) {}

  /// Answers one message, streaming.
  paddock::GenerateResult answer(const std::string& text) {
    std::vector<paddock::TokenId> tokens;
    if (started_) {
      const paddock::ChatTurn turn = format_.next_turn({"user", text}, last_answer_);
      take_back_to(answer_end_ - turn.take_back);
      tokens = turn.tokens;
    } else {
      std::vector<paddock::ChatMessage> messages;
      if (!args_.system.empty()) messages.push_back({"system", args_.system});
      messages.push_back({"user", text});
      tokens = format_.encode(messages, true);
    }
    return answer(tokens);
  }

  /// The last message again, with another answer.
  paddock::GenerateResult retry() {
    if (!started_) {
      throw paddock::Error(paddock::ErrorCode::kInvalidArgument, "there is no answer to replace");
    }
    ++options_.sampling.seed;  // with the same one the answer would be the same
    take_back_to(turn_start_);
    return answer(last_tokens_);
  }

  /// Other rules from here on: the conversation so far is read again under them. Where that fails,
  /// the rules stay what they were.
  void set_policy(const std::string& spec) {
    const std::string before = engine_.options().kv.policy;
    engine_.close_session(session_);
    try {
      engine_.set_kv_policy(spec);
      session_ = open_with_history();
    } catch (...) {
      engine_.set_kv_policy(before);
      session_ = open_with_history();
      throw;
    }
  }

  void clear() {
    history_.clear();
    read_again();
    started_ = false;
  }

  int64_t length() const { return engine_.session_length(session_); }

 private:
  paddock::SessionId open_with_history() {
    const paddock::SessionId session = engine_.open_session();
    try {
      if (!history_.empty()) engine_.feed(session, history_);
    } catch (...) {
      engine_.close_session(session);
      throw;
    }
    return session;
  }

  void read_again() {
    engine_.close_session(session_);
    session_ = open_with_history();
  }

  void take_back_to(int64_t length) {
    if (length >= this->length()) return;
    history_.resize(static_cast<size_t>(length));
    try {
      engine_.truncate(session_, length);
    } catch (const paddock::Error& e) {
      if (e.code() != paddock::ErrorCode::kInvalidArgument) throw;
      read_again();  // the rule has dropped what was in view then
    }
  }

  paddock::GenerateResult answer(const std::vector<paddock::TokenId>& tokens) {
    const int64_t start = engine_.session_length(session_);
    paddock::GenerateResult result = engine_.generate(session_, tokens, options_);
    turn_start_ = start;
    last_tokens_ = tokens;
    history_.insert(history_.end(), tokens.begin(), tokens.end());
    history_.insert(history_.end(), result.tokens.begin(), result.tokens.end());
    if (result.stop_token) history_.push_back(*result.stop_token);
    started_ = true;
    answer_end_ = engine_.session_length(session_);
    last_answer_ = result;
    return result;
  }

  static paddock::ChatOptions chat_options(const Args& args) {
    paddock::ChatOptions options;
    options.template_name = args.template_name;
    if (!args.date.empty()) options.date = args.date;
    return options;
  }

  const Args& args_;
  paddock::Engine& engine_;
  paddock::GenerateOptions options_;
  paddock::ChatTemplate format_;
  paddock::SessionId session_;
  std::vector<paddock::TokenId> history_;      // all that the session holds
  std::vector<paddock::TokenId> last_tokens_;  // of the last message
  int64_t turn_start_ = 0;                     // length of the session before the last message
  paddock::GenerateResult last_answer_;
  int64_t answer_end_ = 0;  // length of the session after it
  bool started_ = false;
};

constexpr const char* kCommands =
    "/stats  tokens held\n/kv     the cache, layer by layer\n/policy what each layer keeps\n"
    "/policy SPEC  keep something else; the conversation is read again\n"
    "/retry  the last message again, with another answer\n"
    "/clear  forget the conversation\n/quit   end\n";

/// Commands that answer on stderr.
void slash_command(const std::string& line, const paddock::Engine& engine,
                   Conversation& conversation) {
  if (line == "/stats") {
    note(fmt::format("{} tokens, {} bytes of KV cache in use\n", conversation.length(),
                     engine.kv_stats().total.bytes));
  } else if (line == "/kv") {
    note(paddock::to_table(engine.kv_stats()));
  } else if (line == "/policy") {
    note(fmt::format("{}\n", engine.options().kv.policy));
  } else if (line.starts_with("/policy ")) {
    try {
      conversation.set_policy(line.substr(8));
    } catch (const paddock::Error& e) {
      note(fmt::format("{}\n", e.what()));
    }
  } else if (line == "/clear") {
    conversation.clear();
  } else {
    note(fmt::format("{}", line == "/help" ? "" : "unknown command '" + line + "'; there are\n"));
    note(kCommands);
  }
}

int run(const Args& args) {
  if (args.max_tokens < 0) {
    throw UsageError(fmt::format("-n {}: must be 0 or more", args.max_tokens));
  }
  if (args.single_turn && args.prompt.empty()) {
    throw UsageError("--single-turn: needs a message with -p");
  }
  paddock::GenerateOptions options;
  options.sampling = args.sampling.options();
  options.max_tokens = args.max_tokens;
  paddock::EngineOptions engine_options = args.engine.engine_options();
  const auto model = args.engine.load_model();
  EventFile events(args.report.events, engine_options);
  const auto engine = make_engine(model, engine_options);
  events.begin();
  args.sampling.report_seed(options.sampling);
  const InterruptGuard guard(*engine);
  if (!args.engine.json) {
    options.on_token = [](const paddock::TokenEvent& event) {
      print(event.text);
      return !InterruptGuard::interrupted();
    };
  }
  std::unique_ptr<Conversation> conversation;
  try {
    conversation = std::make_unique<Conversation>(args, *engine, options);
  } catch (const paddock::Error& e) {
    if (e.code() == paddock::ErrorCode::kInvalidArgument) throw UsageError(e.what());
    if (e.code() != paddock::ErrorCode::kUnsupported) throw;
    std::string words = e.what();  // the library names its own option
    const std::string option = "ChatOptions::template_name";
    if (const size_t at = words.find(option); at != std::string::npos) {
      words.replace(at, option.size(), "--chat-template");
    }
    throw paddock::Error(e.code(), words);
  }
  const auto show = [&](const paddock::GenerateResult& result) {
    if (args.engine.json) {
      print_json({{"text", result.text},
                  {"prompt_tokens", result.prompt_tokens},
                  {"tokens", result.tokens},
                  {"finish_reason", paddock::finish_reason_name(result.finish_reason)}});
    } else {
      print("\n");
    }
    if (result.finish_reason == paddock::FinishReason::kError) {
      throw paddock::Error(paddock::ErrorCode::kInternal, result.error);
    }
  };
  std::optional<Watch> watch;
  if (args.report.watch) watch.emplace(*engine);
  const auto end = [&] {
    watch.reset();
    events.close();
    if (args.report.stats) note(fmt::format("\n{}", paddock::to_table(engine->kv_stats())));
    return 0;
  };
  // A message that cannot be taken is refused; the conversation goes on without it.
  const auto attempt = [&](const std::function<paddock::GenerateResult()>& answer) {
    try {
      show(answer());
      return true;
    } catch (const paddock::Error& e) {
      if (e.code() != paddock::ErrorCode::kInvalidArgument &&
          e.code() != paddock::ErrorCode::kOutOfMemory) {
        throw;
      }
      complain(fmt::format("error: {}", e.what()));
      return false;
    }
  };
  if (args.single_turn) {
    show(conversation->answer(args.prompt));
    return end();
  }
  bool all_taken = true;
  const auto say = [&](const std::string& text) {
    all_taken &= attempt([&] { return conversation->answer(text); });
  };
  if (!args.prompt.empty()) say(args.prompt);
  const bool terminal = isatty(STDIN_FILENO) == 1;
  for (std::string line; !InterruptGuard::interrupted();) {
    if (terminal) note("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    if (line == "/quit") break;
    if (line == "/retry") {
      attempt([&] { return conversation->retry(); });
    } else if (line[0] == '/') {
      slash_command(line, *engine, *conversation);
    } else {
      say(line);
    }
  }
  end();
  return all_taken ? 0 : 1;
}

}  // namespace

void add_chat(CLI::App& app, int& exit_code) {
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("chat", "a conversation with history");
  args->engine.add_to(*command);
  args->sampling.add_to(*command);
  args->report.add_to(*command);
  command->add_option("--system", args->system, "the system message");
  command->add_option("-p,--prompt", args->prompt, "the first message");
  command->add_flag("--single-turn", args->single_turn, "answer -p once and end");
  command->add_option("--chat-template", args->template_name,
                      "name of a chat format (default: the model's own)");
  command->add_option("--date", args->date, "\"Today Date\" of Llama 3.1 and 3.2");
  command->add_option("-n,--predict", args->max_tokens, "most tokens of one answer")
      ->capture_default_str();
  command->callback([args, &exit_code] { exit_code = run(*args); });
}

}  // namespace cli
