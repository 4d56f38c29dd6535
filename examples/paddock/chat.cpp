// paddock chat: messages and commands, line by line.
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "chat_record.h"
#include "common.h"
#include "conversation.h"
#include "kv_notes.h"
#include "kv_report.h"

namespace cli {
namespace {

struct Args {
  EngineArgs engine;
  SamplingArgs sampling;
  KvReportArgs report;
  ConversationOptions conversation;
  std::string prompt, keep;
  int max_tokens = 512;
  bool single_turn = false;
};

// ---- what a line is

struct Line {
  enum class Kind { kMessage, kCommand, kRefused } kind = Kind::kMessage;
  std::string text;      // the message, the command's name, or why it is refused
  std::string argument;  // of a command
};

struct SlashCommand {
  const char* name;
  const char* argument;  // null: takes none
  const char* does;
};
constexpr SlashCommand kCommands[] = {
    {"stats", nullptr, "what is held, of how much, and what has left"},
    {"kv", nullptr, "the cache, layer by layer"},
    {"policy", "[SPEC]",
     "what each layer keeps; with SPEC the conversation is read again under it"},
    {"why", "[TEXT]", "what became of a text in the cache; without one, of what left last"},
    {"turns", nullptr, "the turns there are, and their tokens"},
    {"drop", "N", "leave a turn out"},
    {"pin", "N", "have rules keep what a turn has in the cache; /unpin N: no longer"},
    {"unpin", "N", ""},
    {"summarise", nullptr, "have the model condense all turns but the newest, and leave them out"},
    {"retry", nullptr, "the last message again: what was refused, or with another answer"},
    {"clear", nullptr, "forget the conversation"},
    {"help", nullptr, "this list"},
    {"quit", nullptr, "end; so does /exit"},
    {"exit", nullptr, ""}};

/// Whether one letter more, less or changed, or two neighbours swapped, make `b` of `a`.
bool nearly(std::string_view a, std::string_view b) {
  while (!a.empty() && !b.empty() && a[0] == b[0]) {
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  while (!a.empty() && !b.empty() && a.back() == b.back()) {
    a.remove_suffix(1);
    b.remove_suffix(1);
  }
  const bool swapped = a.size() == 2 && b.size() == 2 && a[0] == b[1] && a[1] == b[0];
  return swapped || (a.size() <= 1 && b.size() <= 1);
}

std::string in_small_letters(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

/// A line that begins with a slash is a command if it names one, and a message otherwise: "//"
/// makes it one in any case. A single word that nearly names a command, or does in capitals, is
/// neither.
Line read_line(const std::string& line) {
  if (line.starts_with("//")) return {Line::Kind::kMessage, line.substr(1), ""};
  if (line[0] != '/') return {Line::Kind::kMessage, line, ""};
  const std::string name = line.substr(1, line.find(' ') - 1);
  const size_t argument_at = line.find_first_not_of(' ', name.size() + 1);
  const std::string argument = argument_at == std::string::npos ? "" : line.substr(argument_at);
  const auto refuse = [&](const std::string& why) {
    return Line{Line::Kind::kRefused,
                fmt::format("{}; a message that begins so is written /{}", why, line), ""};
  };
  for (const SlashCommand& command : kCommands) {
    if (name != command.name) continue;
    if (argument.empty() || command.argument != nullptr) {
      return {Line::Kind::kCommand, name, argument};
    }
    return refuse(fmt::format("/{} takes nothing after it", name));
  }
  const std::string meant = argument.empty() ? in_small_letters(name) : name;
  if (meant == "save" || meant == "load") return refuse(fmt::format("there is no /{} yet", meant));
  if (!argument.empty()) return {Line::Kind::kMessage, line, ""};
  for (const SlashCommand& command : kCommands) {
    if (nearly(meant, command.name)) {
      return refuse(fmt::format("there is no command /{}, but /{}", name, command.name));
    }
  }
  return {Line::Kind::kMessage, line, ""};
}

std::string help() {
  std::string text;
  for (const SlashCommand& command : kCommands) {
    if (*command.does == '\0') continue;
    const std::string form =
        fmt::format("/{} {}", command.name, command.argument != nullptr ? command.argument : "");
    text += fmt::format("{:<15} {}\n", form, command.does);
  }
  return text + "//...           a message that begins with one slash\n";
}

/// The beginning of a text, without its line ends.
std::string on_one_line(std::string text) {
  constexpr size_t kShown = 300;
  for (char& c : text) c = c == '\n' || c == '\r' ? ' ' : c;
  if (text.size() <= kShown) return text;
  size_t end = kShown;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not in the middle of a character
  return text.substr(0, end) + "...";
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
    const Line line = read_line(text);
    if (line.kind == Line::Kind::kMessage) {
      all_taken_ &= say(line.text);
    } else if (line.kind == Line::Kind::kRefused) {
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

 private:
  /// What is refused is said; the conversation goes on without it.
  template <typename Fn>
  bool attempt(const Fn& fn) {
    bool done = false;
    try {
      done = fn();
    } catch (const paddock::Error& e) {
      if (e.code() != paddock::ErrorCode::kInvalidArgument &&
          e.code() != paddock::ErrorCode::kOutOfMemory) {
        throw;
      }
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
      note(help());
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
    } else {
      if (name == "policy") conversation_.set_policy(argument);
      if (name == "clear") conversation_.clear();
      advice_.clear();
      cut_off_.reset();
    }
  }

  std::string stats() const {
    const paddock::KvStats stats = engine_.kv_stats();
    const int64_t most = conversation_.most_tokens();
    const int64_t context = engine_.options().context;
    std::string text = fmt::format("{} tokens", conversation_.length());
    if (most == INT32_MAX) {
      text +=
          fmt::format(" of any number, as {} bounds what layers keep", engine_.options().kv.policy);
    } else {
      text += fmt::format(
          " of at most {} ({:.0f}%), the limit of {}", most,
          100.0 * static_cast<double>(conversation_.length()) / static_cast<double>(most),
          most < context ? "--kv-budget" : "the context");
    }
    text += fmt::format("\n{} in use, {} bytes\nleft:", pages_text(stats), stats.total.bytes);
    for (const auto reason : {paddock::RemovalReason::kWindow, paddock::RemovalReason::kPolicyTrim,
                              paddock::RemovalReason::kUser}) {
      text +=
          fmt::format(" {} pages by {},", stats.total.pages_removed[static_cast<size_t>(reason)],
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
  std::string advice_;                            // said last
  std::optional<paddock::FinishReason> cut_off_;  // how the last answer ended
};

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
  command.add_flag("--single-turn", args->single_turn, "answer -p once and end");
  command.add("--chat-template", args->conversation.template_name,
              "name of a chat format (default: the model's own)");
  command.add("--date", args->conversation.date, "\"Today Date\" of Llama 3.1 and 3.2");
  command.add("-n,--predict", args->max_tokens, "most tokens of one answer").shows_default();
  command.runs([args] { return run(*args); });
}

}  // namespace cli
