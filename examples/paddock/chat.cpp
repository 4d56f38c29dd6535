// paddock chat: what messages and commands do (chat_line.h reads them).
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "advice.h"
#include "chat_line.h"
#include "chat_log.h"
#include "chat_record.h"
#include "common.h"
#include "conversation.h"
#include "kv_notes.h"
#include "kv_report.h"
#include "wording.h"

namespace cli {
namespace {

struct Args {
  EngineArgs engine;
  SamplingArgs sampling;
  KvReportArgs report;
  ConversationOptions conversation;
  std::string prompt, keep, log;
  int max_tokens = 512;
  bool single_turn = false;
};

/// The beginning of a text, without its line ends.
std::string on_one_line(std::string text) {
  for (char& c : text) c = c == '\n' || c == '\r' ? ' ' : c;
  return beginning_of(text, 300);
}

// ---- the chat

class Chat {
 public:
  Chat(const Args& args, const ConversationOptions& conversation, paddock::Engine& engine,
       const ChatRecord& record, const paddock::GenerateOptions& options)
      : args_(args),
        engine_(engine),
        record_(record),
        conversation_(conversation, engine, options),
        notes_(engine, "/policy") {}

  /// False where the message could not be taken or its answer was cut off for lack of room.
  bool say(const std::string& message) {
    return attempt([&] {
      const bool taken = show(conversation_.answer(message));
      if (const auto left = conversation_.keep_to_rule()) tell(*left);
      return taken;
    });
  }
  /// False once nothing more is to be read.
  bool take(const std::string& text) {
    const ChatLine line = read_chat_line(text);
    if (line.kind == ChatLine::Kind::kMessage) {
      all_taken_ &= say(line.text);
    } else if (line.kind == ChatLine::Kind::kRefused) {
      complain(line.text);
    } else if (line.text == "quit" || line.text == "exit") {
      return false;
    } else {
      attempt([&] {
        command(line.text, line.argument);
        return true;
      });
    }
    return true;
  }
  bool all_taken() const { return all_taken_; }
  /// Since the last /clear, as it was said: what was left out since is there, too.
  std::vector<paddock::ChatMessage> said() const {
    std::vector<paddock::ChatMessage> messages;
    for (const auto& [turn, its] : said_) {
      messages.push_back({"user", its.first});
      messages.push_back({"assistant", its.second});
    }
    return messages;
  }

 private:
  /// What is refused is said; the conversation goes on without it.
  template <typename Fn>
  bool attempt(const Fn& fn) {
    bool done = false;
    try {
      done = fn();
    } catch (const paddock::Error& e) {
      if (!is_refusal(e)) throw;
      // What can be done is said once, not at every message that does not fit any more.
      const std::string advice = paddock::to_text(e.proposals(), option_names("/policy"));
      const bool known = !advice.empty() && advice == advice_;
      complain("error: " + (known ? std::string(e.problem()) : describe(e, "/policy")));
      advice_ = advice;
    }
    const std::string news = notes_.news(conversation_.length(),
                                         [this](int64_t at) { return conversation_.turn_of(at); });
    if (!news.empty()) note(fmt::format("paddock: {}\n", news));
    return done;
  }

  bool show(const paddock::GenerateResult& result) {
    const auto turns = conversation_.turns();
    if (!turns.empty() && result.finish_reason != paddock::FinishReason::kError) {
      said_[turns.back().number] = {turns.back().message, result.text};
    }
    if (args_.engine.json) {
      print_json({{"text", result.text},
                  {"prompt_tokens", result.prompt_tokens},
                  {"tokens", result.tokens},
                  {"finish_reason", paddock::finish_reason_name(result.finish_reason)},
                  {"cached_tokens", result.cached_tokens},
                  {"conversation_tokens", conversation_.length()},
                  {"kv_bytes", engine_.kv_stats().total.bytes},
                  {"first_token_seconds", result.timings.first_token_seconds},
                  {"seconds", result.timings.prefill_seconds + result.timings.decode_seconds}});
    } else {
      print("\n");
    }
    if (result.finish_reason == paddock::FinishReason::kError) {
      complain("error: " + result.error);
      return false;
    }
    const std::string lack = lack_of_room(result, engine_, "/policy");
    if (lack.empty()) {
      cut_off_ = result.finish_reason;
      return true;
    }
    // Once, not at every turn.
    if (cut_off_ != result.finish_reason) note(fmt::format("paddock: {}\n", lack));
    cut_off_ = result.finish_reason;
    advice_ = paddock::to_text(result.proposals, option_names("/policy"));
    return false;
  }

  /// What was left out, what that saves and what it took.
  static void tell(const LeftOut& left) {
    std::string turns;
    for (size_t i = 0; i < left.turns.size(); ++i) {
      turns += fmt::format("{}{}", i == 0 ? "" : ", ", left.turns[i]);
      if (i < left.shares.size()) turns += fmt::format(" ({:.2f} %)", 100 * left.shares[i]);
    }
    note(
        fmt::format("paddock: left out turn{} {}{}: the conversation is {} tokens shorter; {} "
                    "stayed in the cache, {} behind them were read again, in {:.2f} s\n",
                    left.turns.size() == 1 ? "" : "s", turns,
                    left.shares.empty() ? "" : ", by what the newest turn attended to", left.tokens,
                    left.stayed, left.read_again, left.seconds));
    if (!left.summary.empty()) {
      note(fmt::format("paddock: in their place: {}\n", on_one_line(left.summary)));
      if (!left.summary_refusal.empty()) {
        note(fmt::format("paddock: rules may drop it like any text: {}\n", left.summary_refusal));
      }
    }
  }

  std::string turns() const {
    std::string text;
    for (const Conversation::TurnInfo& turn : conversation_.turns()) {
      text += fmt::format("{:>4} {:>6} tokens  {}{}\n", turn.number, turn.tokens,
                          turn.is_pinned ? "(pinned) " : "", on_one_line(turn.message));
    }
    return text.empty() ? "there are no turns yet\n" : text;
  }

  /// What follows /drop, /pin or /unpin.
  static int64_t turn_number(const std::string& command, const std::string& argument) {
    int64_t number = 0;
    const char* end = argument.data() + argument.size();
    const auto [last, error] = std::from_chars(argument.data(), end, number);
    if (error != std::errc() || last != end) {
      throw paddock::Error(
          paddock::ErrorCode::kInvalidArgument,
          fmt::format("/{} {}: give the number of a turn; /turns lists them", command, argument));
    }
    return number;
  }

  /// Commands answer on stderr.
  void command(const std::string& name, const std::string& argument) {
    if (name == "stats") {
      note(stats());
    } else if (name == "kv") {
      note(stats_text(engine_));
    } else if (name == "policy" && argument.empty()) {
      note(fmt::format("{}\n", engine_.options().kv.policy));
    } else if (name == "help") {
      note(chat_help());
    } else if (name == "why") {
      note(record_.why(argument, conversation_.session()));
    } else if (name == "turns") {
      note(turns());
    } else if (name == "drop") {
      tell(conversation_.drop(turn_number(name, argument)));
    } else if (name == "pin") {
      conversation_.pin(turn_number(name, argument));
    } else if (name == "unpin") {
      conversation_.unpin(turn_number(name, argument));
    } else if (name == "summarise") {
      tell(conversation_.summarise());
    } else if (name == "retry") {
      all_taken_ &= show(conversation_.retry());
    } else if (name == "policy" || name == "clear") {
      if (name == "policy") conversation_.set_policy(argument);
      if (name == "clear") {
        conversation_.clear();
        said_.clear();
      }
      advice_.clear();
      cut_off_.reset();
    } else {
      throw std::logic_error("/" + std::string(name) + " is listed and does nothing");
    }
  }

  std::string stats() const {
    const paddock::KvStats stats = engine_.kv_stats();
    const int64_t most = conversation_.most_tokens();
    const int64_t context = engine_.options().context;
    std::string text = fmt::format("{} tokens", conversation_.length());
    if (most == paddock::kUnlimited) {
      text +=
          fmt::format(" of any number, as {} bounds what layers keep", engine_.options().kv.policy);
    } else {
      text += fmt::format(
          " of at most {} ({:.0f}%), the limit of {}", most,
          100.0 * static_cast<double>(conversation_.length()) / static_cast<double>(most),
          most < context ? "--kv-budget" : "the context");
    }
    text += fmt::format("\n{} in use, {} bytes\nleft:", pages_text(stats), stats.total.bytes);
    for (size_t i = 0; i < stats.total.pages_removed.size(); ++i) {
      const auto reason = static_cast<paddock::RemovalReason>(i);
      if (!paddock::is_by_rule(reason) && reason != paddock::RemovalReason::kUser) continue;
      text += fmt::format(" {} pages by {},", stats.total.pages_removed[i],
                          paddock::removal_reason_name(reason));
    }
    return text + fmt::format(" in {} decisions\n", stats.total.trim_decisions);
  }

  const Args& args_;
  paddock::Engine& engine_;
  const ChatRecord& record_;
  Conversation conversation_;
  KvNotes notes_;
  bool all_taken_ = true;
  std::map<int64_t, std::pair<std::string, std::string>> said_;  // message and answer, by turn
  std::string advice_;                                           // said last
  std::optional<paddock::FinishReason> cut_off_;                 // how the last answer ended
};

void check_usage(const Args& args) {
  if (args.max_tokens < 0) {
    throw UsageError(fmt::format("-n {}: must be 0 or more", args.max_tokens));
  }
  if (args.single_turn && args.prompt.empty()) {
    throw UsageError("--single-turn: needs a message with -p");
  }
}

int run(const Args& args) {
  check_usage(args);
  paddock::GenerateOptions options;
  options.sampling = args.sampling.options();
  options.max_tokens = args.max_tokens;
  ConversationOptions conversation = args.conversation;
  conversation.keep = KeepRule::parse(args.keep);
  paddock::EngineOptions engine_options = args.engine.engine_options();
  if (conversation.keep.kind == KeepRule::Kind::kDropIrrelevant &&
      engine_options.kv.policy == "full") {
    engine_options.kv.policy = "h2o";  // keeps everything as long as there is room, and measures
  }
  const auto model = args.engine.load_model();
  EventFile events(args.report.events, engine_options);
  TraceFile trace(args.report.trace, engine_options);
  const ChatRecord record(engine_options);
  const auto engine = make_engine(model, engine_options);
  events.begin(*engine);
  trace.begin();
  args.sampling.report_seed(options.sampling);
  const InterruptGuard guard(*engine);
  if (!args.engine.json) {
    options.on_token = [](const paddock::TokenEvent& event) {
      print(event.text);
      return !InterruptGuard::interrupted();
    };
  }
  std::optional<OutputFile> log;
  if (!args.log.empty()) log.emplace(args.log);
  std::unique_ptr<Chat> chat;
  try {
    chat = std::make_unique<Chat>(args, conversation, *engine, record, options);
  } catch (const paddock::Error& e) {
    if (e.code() == paddock::ErrorCode::kInvalidArgument) throw UsageError(describe(e));
    if (e.code() != paddock::ErrorCode::kUnsupported) throw;
    std::string words = e.what();  // the library names its own option
    const std::string option = "ChatOptions::template_name";
    if (const size_t at = words.find(option); at != std::string::npos) {
      words.replace(at, option.size(), "--chat-template");
    }
    throw paddock::Error(e.code(), words);
  }
  std::optional<Watch> watch;
  if (args.report.watch) watch.emplace(*engine);
  bool all_taken = args.prompt.empty() || chat->say(args.prompt);
  const bool terminal = isatty(STDIN_FILENO) == 1;
  for (std::string line; !args.single_turn && !InterruptGuard::interrupted();) {
    if (terminal) note("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !chat->take(line)) break;
  }
  all_taken &= chat->all_taken();
  if (log) {
    log->write(chat_log(conversation.system, chat->said()));
    log->finish();
  }
  watch.reset();
  events.close();
  trace.check();
  if (args.report.stats) note(fmt::format("\n{}", stats_text(*engine)));
  return all_taken ? 0 : 1;
}

}  // namespace

void add_chat(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command = tool.add("chat", "a conversation with history");
  args->engine.add_to(command);
  args->sampling.add_to(command);
  args->report.add_to(command);
  command.add("--system", args->conversation.system, "the system message");
  command.add("-p,--prompt", args->prompt, "the first message");
  command
      .add(
          "--keep", args->keep,
          "how many turns stay: turns:N (the first, the newest), drop-irrelevant:N (those that the "
          "newest attended to), summarise:N (the model condenses the others)")
      .not_empty();
  command
      .add("--log", args->log,
           "write what was said here, a line of JSON for each message, as replay and advise --chat "
           "read it")
      .output_file();
  command.add_flag("--single-turn", args->single_turn, "answer -p once and end");
  command.add("--chat-template", args->conversation.template_name,
              "name of a chat format (default: the model's own)");
  command.add("--date", args->conversation.date, "\"Today Date\" of Llama 3.1 and 3.2");
  command.add("-n,--predict", args->max_tokens, "most tokens of one answer").shows_default();
  command.runs([args] { return run(*args); });
}

}  // namespace cli
