// paddock advise: settings that fit the memory, measured on the user's own text, and which of them
// to take.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "advise_report.h"
#include "chat_log.h"
#include "common.h"

namespace cli {
namespace {

constexpr int64_t kLeastTokens = 48;   // of a sample: enough to read, and 16 to decode
constexpr int64_t kProbeTokens = 256;  // to see how quick the machine is
constexpr double kCandidates = 10;     // that are to be measured in kRulesShare of the time,
constexpr size_t kGroup = 3;           // engines beside full's at once
constexpr double kPasses = 10;         // each taking so many passes over the sample
constexpr double kRulesShare = 0.6, kSettingsShare = 0.8;

struct Args {
  EngineArgs engine;  // of which the settings to be found are not options
  std::string log, file, template_name, memory;
  int users = 1;
  int facts = 5;
  double time = 120;
};

// ---- what there is

void check_usage(const Args& args) {
  if (args.users < 1 || args.users > paddock::kMaxSequences) {
    throw UsageError(
        fmt::format("--users {}: must be from 1 to {}", args.users, paddock::kMaxSequences));
  }
  if (args.facts < 0 || args.facts > paddock::kMaxFacts) {
    throw UsageError(
        fmt::format("--facts {}: must be from 0 (none) to {}", args.facts, paddock::kMaxFacts));
  }
  if (!(args.time > 0 && args.time <= 1e6)) {
    throw UsageError(fmt::format("--time {}: must be above 0, and at most 1e6 seconds", args.time));
  }
}

Sample read_sample(const Args& args, const paddock::Model& model) {
  Sample sample;
  if (args.log.empty()) {
    sample.tokens = encode(*model.tokenizer(), "", args.file, {.parse_special = true});
  } else {
    ChatText text = encode_chat(
        parse_chat_log(read_file(args.log), args.log == "-" ? "stdin" : args.log),
        paddock::ChatTemplate(model.tokenizer(), {.template_name = args.template_name}));
    sample.tokens = std::move(text.tokens);
    sample.turns = std::move(text.turns);
  }
  if (static_cast<int64_t>(sample.tokens.size()) < kLeastTokens) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         fmt::format("the text has only {} tokens; {} are needed to measure with",
                                     sample.tokens.size(), kLeastTokens));
  }
  if (args.facts > 0) sample.facts = paddock::make_facts(args.facts);
  return sample;
}

Room room_of(const Args& args, const paddock::Model& model, const Sample& sample) {
  Room room;
  room.model = args.engine.model;
  room.options = args.engine.engine_options();
  room.options.max_sequences = args.users;
  if (!args.memory.empty()) room.memory = parse_size("--memory", args.memory);
  if (room.options.context > 0) return room;
  room.options.context = static_cast<int64_t>(sample.tokens.size());
  if (!sample.facts.empty()) {
    room.options.context += paddock::recall_tokens(*model.tokenizer(), sample.facts);
  }
  return room;
}

// ---- measuring

/// Positions that a user's rule may keep: half of them where all fit, else what the memory holds.
int64_t kept_at_most(const Advice& a) {
  const Candidate& full = a.candidates[0];
  const int64_t context = full.options.context;
  if (full.fits || !a.room.memory) return context / 2;
  const double share = static_cast<double>(*a.room.memory) / static_cast<double>(full.pool_bytes);
  return static_cast<int64_t>(share * static_cast<double>(context));
}

/// As much of the text as the time is enough for; but so much that every rule lets something go, as
/// else there is nothing to be seen.
Sample sample_for(const Advice& a, const Sample& text, const Speed& speed, double seconds) {
  const double tokens = seconds * kRulesShare * speed.prefill_rate / (kCandidates * kPasses);
  const auto all = static_cast<double>(text.tokens.size());
  const auto wanted = static_cast<int64_t>(std::min(tokens, all));
  return text.first(std::max({wanted, kLeastTokens, kept_at_most(a) * 3 / 2}));
}

/// Those from the `first` on, in groups that are compared side by side.
void measure(const std::shared_ptr<const paddock::Model>& model, Advice& a, size_t first,
             const TimeLimit& time) {
  const auto show = progress("advise");
  std::vector<Candidate*> group;
  double group_seconds = 0;  // that the last one took; the next one takes as long
  for (size_t i = first; i < a.candidates.size(); ++i) {
    Candidate& c = a.candidates[i];
    if (show) show(static_cast<double>(i) / static_cast<double>(a.candidates.size()));
    // Full is the yardstick, whether it fits or not.
    if (c.fits || i == 0) c.speed = measure_speed(model, c, a.sample, time);
    if (c.fits && i > 0 && !c.quality) group.push_back(&c);
    if (group.size() == kGroup || (i + 1 == a.candidates.size() && !group.empty())) {
      const double left = time.seconds_left();
      if (group_seconds < left) measure_quality(model, group, a.sample, time, a.full);
      group_seconds = std::max(group_seconds, left - time.seconds_left());
      group.clear();
    }
  }
  a.candidates[0].quality = a.full;
  if (show) show(1);
}

std::vector<int> numbers_for(int users) {
  std::vector<int> numbers;
  for (int n = 1; n < 2 * users || n <= 4; n *= 2) numbers.push_back(n);
  numbers.push_back(users);
  numbers.push_back(std::min(2 * users, paddock::kMaxSequences));
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

void measure_all(const std::shared_ptr<const paddock::Model>& model, const Sample& text,
                 const Args& args, Advice& a) {
  const TimeLimit time(args.time);
  const auto probe = measure_speed(model, a.candidates[0], text.first(kProbeTokens), time);
  if (probe) a.sample = sample_for(a, text, *probe, args.time);
  measure(model, a, 0, time.part(kRulesShare));
  a.verdict = judge(a.candidates);
  if (!a.verdict.best) return;
  // The best rule's other settings, which may be better still.
  const size_t n_rules = a.candidates.size();
  const Candidate base = a.candidates[*a.verdict.best];
  for (Candidate& c : setting_candidates(a.room, base)) {
    // What a rule keeps does not depend on -b.
    if (c.options.batch_size != base.options.batch_size) c.quality = base.quality;
    a.candidates.push_back(std::move(c));
  }
  measure(model, a, n_rules, time.part(kSettingsShare));
  mark_front(a.candidates);
  a.verdict = judge(a.candidates);
  a.out_of_time = std::any_of(a.candidates.begin(), a.candidates.end(), [](const Candidate& c) {
    return c.fits && (!c.speed || !c.quality);
  });
  const Candidate& best = a.candidates[*a.verdict.best];
  const std::vector<int> numbers = numbers_for(args.users);
  int64_t prompt = std::min<int64_t>(best.options.context - 16, 128);
  if (probe) {
    // Twice, the first time to warm up, in half of what is left.
    double all = 0;
    for (const int n : numbers) all += n;
    const double affordable = time.seconds_left() * probe->prefill_rate / (4 * all);
    prompt = std::clamp(static_cast<int64_t>(affordable), int64_t{8}, best.options.context - 16);
  }
  a.batch_prompt = static_cast<int>(std::max<int64_t>(prompt, 1));
  a.batches = measure_batches(model, a.room, best, numbers, a.batch_prompt, time);
}

int run(const Args& args) {
  check_usage(args);
  const auto model = args.engine.load_model();
  const Sample text = read_sample(args, *model);
  Advice a;
  a.room = room_of(args, *model, text);
  a.sample = text;
  a.is_chat = !args.log.empty();
  a.text_name = a.is_chat ? args.log : args.file;
  a.seconds = args.time;
  a.all_tokens = static_cast<int64_t>(text.tokens.size());
  const InterruptGuard guard([] {});
  a.candidates = rule_candidates(a.room);
  measure_all(model, text, args, a);
  if (args.engine.json) {
    print_json(advice_json(a), 2);
  } else {
    print(advice_text(a));
  }
  return 0;
}

}  // namespace

void add_advise(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command =
      tool.add("advise", "which settings fit, measured on a text, and which of them to take");
  EngineArgs& engine = args->engine;
  command.add("-m,--model", engine.model, "GGUF file or Hugging Face folder")
      .required()
      .not_empty();
  Options input = command.one_of("text");
  input
      .add("--chat", args->log,
           "a conversation: JSON lines with role and content, or OpenAI's messages")
      .not_empty();
  input.add("-f,--file", args->file, "the text, '-' for stdin").not_empty();
  command.add("--chat-template", args->template_name, "of the conversation").not_empty();
  command
      .add("--memory", args->memory,
           "bytes for the KV pool of all users, such as 12MiB (default: what is free here)")
      .not_empty();
  command.add("-u,--users", args->users, "sequences at once").shows_default();
  command.add("-c,--ctx-size", engine.context,
              "positions of each user (default: the text's and the facts')");
  command.add("--facts", args->facts, "hidden in the text and asked for after it; 0: none")
      .shows_default();
  command.add("--time", args->time, "seconds for measuring").shows_default();
  command.add("-t,--threads", engine.threads, "worker threads (default: physical cores)");
  command.add("--device", engine.device, "auto, cpu or cuda").shows_default();
  command.add("--precision", engine.precision, "fast or reference").shows_default();
  command.add("--isa", engine.isa, isa_help().c_str()).not_empty();
  command.add_flag("--json", engine.json, "one JSON object on stdout");
  command.runs([args] { return run(*args); });
}

}  // namespace cli
