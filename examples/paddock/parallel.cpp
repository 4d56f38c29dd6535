#include "parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "advice.h"
#include "answer_json.h"

namespace cli {
namespace {

/// What a line asks for.
struct Ask {
  std::vector<paddock::TokenId> prompt;
  paddock::GenerateOptions options;
  int64_t line = 0;  // its number in the file
};

[[noreturn]] void refuse_line(const std::string& file, int64_t number, const std::string& why) {
  throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                       fmt::format("{}:{}: {}", file, number, why));
}

/// One line of the file.
class Line {
 public:
  Line(const std::string& file, int64_t number, const std::string& text)
      : file_(file), number_(number), json_(Json::parse(text, nullptr, false)) {
    if (!json_.is_object()) refuse("is no JSON object");
  }

  [[noreturn]] void refuse(const std::string& why) const { refuse_line(file_, number_, why); }

  /// The value of a key, which the line no longer has; null if it had none.
  Json take(const char* key) {
    known_.push_back(key);
    const auto at = json_.find(key);
    if (at == json_.end()) return nullptr;
    Json value = std::move(*at);
    json_.erase(at);
    return value;
  }

  /// Sets `to` where the line has that key.
  template <typename T>
  void take_integer(const char* key, T& to, int64_t least, int64_t most = INT32_MAX) {
    const Json value = take(key);
    if (value.is_null()) return;
    if (!value.is_number_integer() || value.get<int64_t>() < least || value.get<int64_t>() > most) {
      refuse(fmt::format("{} is {}; it must be a whole number from {} to {}", key, value.dump(),
                         least, most));
    }
    to = static_cast<T>(value.get<int64_t>());
  }

  void take_float(const char* key, float& to) {
    const Json value = take(key);
    if (value.is_null()) return;
    if (!value.is_number()) {
      refuse(fmt::format("{} is {}; it must be a number", key, value.dump()));
    }
    to = static_cast<float>(value.get<double>());
  }

  void take_strings(const char* key, std::vector<std::string>& to) {
    Json value = take(key);
    if (value.is_null()) return;
    if (value.is_string()) value = Json::array({value});
    const bool strings = value.is_array() && std::all_of(value.begin(), value.end(),
                                                         [](auto& v) { return v.is_string(); });
    if (!strings) refuse(fmt::format("{} is {}; it must be strings", key, value.dump()));
    to = value.get<std::vector<std::string>>();
  }

  /// Error if a key is left that nobody has taken: a slip, which would be lost without a word.
  void check_done() const {
    if (json_.empty()) return;
    refuse(fmt::format("there is no key \"{}\"; there are {}", json_.begin().key(),
                       fmt::join(known_, ", ")));
  }

 private:
  const std::string& file_;
  int64_t number_;
  Json json_;
  std::vector<const char*> known_;  // keys that were asked for
};

std::vector<paddock::TokenId> prompt_of(Line& line, const paddock::Model& model,
                                        bool parse_special) {
  const Json text = line.take("prompt"), ids = line.take("tokens");
  if (text.is_null() == ids.is_null()) line.refuse("needs either \"prompt\" or \"tokens\"");
  if (!ids.is_null()) {
    const bool good =
        ids.is_array() && std::all_of(ids.begin(), ids.end(), [](const Json& id) {
          return id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX;
        });
    if (!good) line.refuse("tokens must be an array of token ids");
    return ids.get<std::vector<paddock::TokenId>>();
  }
  if (!text.is_string()) line.refuse("prompt must be a string");
  try {
    return model.tokenizer()->encode(text.get<std::string>(),
                                     {.add_bos = true, .parse_special = parse_special});
  } catch (const paddock::Error& e) {
    line.refuse(e.what());
  }
}

/// `before`: answers to the lines before it.
Ask read_ask(Line line, size_t before, const ParallelJob& job, const paddock::Model& model) {
  Ask ask{.prompt = {}, .options = job.defaults};
  paddock::GenerateOptions& o = ask.options;
  ask.prompt = prompt_of(line, model, job.parse_special);
  line.take_integer("n", o.n, 1, paddock::kMaxAnswers);
  line.take_integer("max_tokens", o.max_tokens, 0);
  line.take_integer("priority", o.priority, -paddock::kMaxPriority, paddock::kMaxPriority);
  const Json rule = line.take("kv_policy");
  if (!rule.is_null()) {
    if (!rule.is_string() || rule == "")
      line.refuse("kv_policy must be a SPEC, such as \"lru:256\"");
    o.kv_policy = rule.get<std::string>();
  }
  line.take_float("temperature", o.sampling.temperature);
  line.take_integer("top_k", o.sampling.top_k, 0);
  line.take_float("top_p", o.sampling.top_p);
  line.take_float("min_p", o.sampling.min_p);
  line.take_float("repeat_penalty", o.sampling.repeat_penalty);
  line.take_float("frequency_penalty", o.sampling.frequency_penalty);
  line.take_float("presence_penalty", o.sampling.presence_penalty);
  o.sampling.seed += before;  // so that equal prompts get answers of their own
  line.take_integer("seed", o.sampling.seed, 0, INT64_MAX);
  line.take_strings("stop", o.stop);
  int logprobs = -1;
  line.take_integer("logprobs", logprobs, 0);
  if (logprobs >= 0) o.logprobs = logprobs;
  const Json ignore_stop = line.take("ignore_eos");
  if (!ignore_stop.is_null()) {
    if (!ignore_stop.is_boolean()) line.refuse("ignore_eos must be true or false");
    o.ignore_stop_tokens = ignore_stop.get<bool>();
  }
  line.check_done();
  return ask;
}

/// The rules that lines name, beside the engine's own, each once.
std::vector<std::string> rules_of(const std::vector<Ask>& asks, const std::string& own) {
  std::vector<std::string> rules;
  for (const Ask& ask : asks) {
    const std::string& rule = ask.options.kv_policy;
    if (rule.empty() || rule == own) continue;
    if (std::find(rules.begin(), rules.end(), rule) == rules.end()) rules.push_back(rule);
  }
  return rules;
}

std::vector<Ask> read_asks(const ParallelJob& job, const paddock::Model& model) {
  const std::string all = read_file(job.file);
  std::vector<Ask> asks;
  int64_t number = 0;
  size_t n_answers = 0;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    const std::string text = all.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    asks.push_back(read_ask(Line(job.file, number, text), n_answers, job, model));
    asks.back().line = number;
    n_answers += static_cast<size_t>(asks.back().options.n);
  }
  if (asks.empty()) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         fmt::format("'{}' holds no request", job.file));
  }
  return asks;
}

/// The engine; a rule that it refuses is told of by the first line that names it.
std::shared_ptr<paddock::Engine> engine_for(const ParallelJob& job, const std::vector<Ask>& asks,
                                            const std::shared_ptr<const paddock::Model>& model,
                                            const paddock::EngineOptions& options) {
  try {
    return make_engine(model, options, "--sequences");
  } catch (const UsageError& e) {
    const std::string text = e.what();
    const std::vector<std::string>& rules = options.kv.other_policies;
    for (size_t i = 0; i < rules.size(); ++i) {
      const std::string name = fmt::format("kv.other_policies[{}]", i);
      if (!text.starts_with(name)) continue;
      const auto first = std::find_if(asks.begin(), asks.end(), [&](const Ask& ask) {
        return ask.options.kv_policy == rules[i];
      });
      refuse_line(job.file, first->line, "kv_policy" + text.substr(name.size()));
    }
    throw;
  }
}

/// Answers that have ended, handed from the driving thread to the one that prints.
class Ended {
 public:
  struct Answer {
    size_t ask;
    paddock::RequestHandle handle;
  };
  void push(Answer answer) {
    {
      const std::lock_guard lock(mutex_);
      answers_.push_back(std::move(answer));
    }
    changed_.notify_one();
  }
  Answer pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !answers_.empty(); });
    Answer answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Answer> answers_;
};

/// What answers had to give up, all together.
struct Falls {
  int64_t answers = 0, changes = 0;
  int64_t earliest = INT64_MAX;  // length at which one of them began to lose
  int32_t least = paddock::kUnlimited;

  void add(const std::vector<paddock::KvBudgetChange>& its) {
    int64_t n = 0;
    for (const paddock::KvBudgetChange& change : its) {
      if (change.after == paddock::kUnlimited) continue;
      ++n;
      earliest = std::min(earliest, change.length);
      least = std::min(least, change.after);
    }
    answers += n > 0 ? 1 : 0;
    changes += n;
  }
  std::string text() const {
    return fmt::format(
        "{} answers gave pages up for others or themselves, the first at {} positions; in {} falls "
        "their budgets came down to {} positions per layer",
        answers, earliest, changes, least);
  }
};

/// Answers for which there was not enough room, and what would help the first.
struct Lacks {
  int64_t answers = 0;
  std::string first;

  void add(const paddock::GenerateResult& result, const paddock::Engine& engine) {
    const std::string lack = lack_of_room(result, engine);
    if (!lack.empty() && answers++ == 0) first = lack;
  }
};

/// Prints what became of an answer. Whether it went well.
bool print_answer(size_t index, const paddock::GenerateOptions& options,
                  const paddock::RequestHandle& handle, const paddock::Engine& engine, Falls& falls,
                  Lacks& lacks) {
  Json out = {{"index", index}};
  if (options.n > 1) out["answer"] = handle.index();
  bool good = false;
  try {
    const paddock::GenerateResult result = handle.wait();
    const uint64_t seed = options.sampling.seed + static_cast<uint64_t>(handle.index());
    out.update(answer_json(result, seed, options.logprobs.has_value()));
    out["cached_tokens"] = result.cached_tokens;
    out["miss"] = Json::parse(paddock::to_json(result.miss));
    out["trims"] = result.trims;
    out["preemptions"] = result.preemptions;
    falls.add(result.budget_changes);
    lacks.add(result, engine);
    good = result.finish_reason != paddock::FinishReason::kError;
  } catch (const paddock::Error& e) {  // refused, or the device failed
    out["finish_reason"] = paddock::finish_reason_name(paddock::FinishReason::kError);
    out["error"] = describe(e);
  }
  print_json(out);
  return good;
}

}  // namespace

int run_parallel(const ParallelJob& job, const EngineArgs& args, const SamplingArgs& sampling,
                 const KvReportArgs& report) {
  paddock::EngineOptions engine_options = args.engine_options();
  const auto model = args.load_model();
  std::vector<Ask> asks = read_asks(job, *model);
  int64_t left = 0;  // answers
  for (const Ask& ask : asks) left += ask.options.n;
  engine_options.max_sequences = static_cast<int32_t>(std::min<int64_t>(job.sequences, left));
  engine_options.kv.other_policies = rules_of(asks, engine_options.kv.policy);
  EventFile events(report.events, engine_options);
  TraceFile trace(report.trace, engine_options);
  const std::shared_ptr<paddock::Engine> engine = engine_for(job, asks, model, engine_options);
  events.begin(*engine);
  trace.begin();
  sampling.report_seed(job.defaults.sampling);
  const InterruptGuard guard(*engine);
  std::optional<Watch> watch;
  if (report.watch) watch.emplace(*engine);

  bool all_good = true;
  Falls falls;
  Lacks lacks;
  Ended ended;
  paddock::EngineRunner runner(engine);
  const auto submit_all = [&](paddock::Engine&) {
    const auto deadline = deadline_in(job.timeout);
    for (size_t i = 0; i < asks.size(); ++i) {
      asks[i].options.deadline = deadline;
      runner.submit(std::move(asks[i].prompt), asks[i].options,
                    [&ended, i](const paddock::RequestHandle& handle) {
                      ended.push({i, handle});
                    });
    }
  };
  runner.call(submit_all);  // before its first step: what comes first depends on no thread's luck
  for (; left > 0; --left) {
    const Ended::Answer answer = ended.pop();
    const paddock::GenerateOptions& asked = asks[answer.ask].options;
    all_good = print_answer(answer.ask, asked, answer.handle, *engine, falls, lacks) && all_good;
  }
  runner.shutdown(paddock::EngineRunner::Shutdown::kDrain);
  watch.reset();
  events.close();
  trace.check();
  if (report.stats) note(fmt::format("\n{}", stats_text(*engine)));
  if (lacks.answers > 0) {
    note(fmt::format("paddock: {} ended early; of the first: {}\n",
                     lacks.answers == 1 ? "1 answer" : fmt::format("{} answers", lacks.answers),
                     lacks.first));
  }
  if (falls.answers > 0) note(fmt::format("paddock: {}\n", falls.text()));
  return all_good ? 0 : 1;
}

}  // namespace cli
