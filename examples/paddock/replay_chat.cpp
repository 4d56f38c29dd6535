// A conversation that was had, once more under each rule: fed, not sampled, so that all rules meet
// the same text. QualityMeter compares them; a pass under a rule that measures attention and drops
// nothing says what a rule should have kept; and one under each rule times the turns as chat has
// them.
#include "replay_chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "chat_log.h"
#include "kept_mass.h"
#include "log.h"
#include "measuring.h"

namespace cli {
namespace {

/// Tokens of an answer that are fed one by one, to be timed.
constexpr int64_t kTimedTokens = 16;

/// One turn under one rule. Of the answer's tokens, under what really was said before each.
struct TurnResult {
  int64_t parts_at = -1;  // the first one in whose place the rule would have said another than the
                          // baseline; -1: none
  double kl = 0, kl_max = 0;
  int64_t agreed = 0;
  // When the answer began:
  std::vector<int64_t> left;   // positions that had left, in each layer,
  int64_t left_somewhere = 0;  // in at least one,
  int64_t left_everywhere = 0;
  double first_token_seconds = 0;  // to read what was said,
  double token_seconds = 0;        // and for each token of the answer
};

/// One rule over the whole conversation.
struct RuleResult {
  std::string policy;
  std::vector<TurnResult> turns;
  std::vector<std::vector<InView>> views;  // [turn][layer], when its answer began
  std::vector<KeptMass> layers;            // sums over turns
};

struct Outcome {
  ChatText text;
  std::string name;
  std::vector<RuleResult> rules;  // the baseline first
  int64_t answer_tokens(size_t turn) const {
    return text.turns[turn].end - text.turns[turn].prompt_end;
  }
};

// ---- measuring

void count_left(const std::vector<InView>& layers, TurnResult& turn) {
  const size_t length = layers[0].size();
  std::vector<size_t> gone(length, 0);
  for (const InView& view : layers) {
    turn.left.push_back(std::count(view.begin(), view.end(), false));
    for (size_t i = 0; i < length; ++i) gone[i] += view[i] ? 0 : 1;
  }
  turn.left_somewhere = static_cast<int64_t>(length) - std::count(gone.begin(), gone.end(), 0U);
  turn.left_everywhere = std::count(gone.begin(), gone.end(), layers.size());
}

/// Rules side by side: what they would have said, and what had left.
void compare(paddock::QualityMeter& meter, Outcome& o) {
  const std::vector<paddock::CompareTurn>& turns = o.text.turns;
  size_t turn = 0;
  paddock::CompareOptions options;
  options.turns = turns;
  options.on_progress = progress("rules");
  options.on_chunk = [&](size_t rule, int64_t positions) {
    RuleResult& result = o.rules[rule];
    const size_t next = result.views.size();
    if (next == turns.size() || positions != turns[next].prompt_end) return true;
    result.views.push_back(in_view(meter.engine(rule), positions));
    count_left(result.views.back(), result.turns[next]);
    return true;
  };
  options.on_position = [&](int64_t at, std::span<const paddock::PositionQuality> scores) {
    while (at >= turns[turn].end) ++turn;
    if (at < turns[turn].prompt_end) return true;
    for (size_t rule = 0; rule < scores.size(); ++rule) {
      TurnResult& result = o.rules[rule].turns[turn];
      result.kl += scores[rule].kl;
      result.kl_max = std::max(result.kl_max, scores[rule].kl);
      result.agreed += scores[rule].agrees ? 1 : 0;
      if (!scores[rule].agrees && result.parts_at < 0) result.parts_at = at;
    }
    return true;
  };
  const paddock::QualityReport report = meter.compare(o.text.tokens, options);
  o.rules[0].policy = report.baseline.policy;
  for (size_t i = 0; i < report.contenders.size(); ++i) {
    o.rules[i + 1].policy = report.contenders[i].policy;
  }
}

/// What attention had given each position when each answer began, and at the end. Under "h2o"
/// without a budget, which is "full" where there is room, and measures.
std::vector<PositionMass> measure_attention(const std::shared_ptr<const paddock::Model>& model,
                                            paddock::EngineOptions options, const ChatText& text) {
  options.kv.policy = "h2o";
  options.kv.block_size = 1;
  options.kv.budget_bytes = 0;
  options.kv.budget_share = 0;
  const auto engine = make_engine(model, options);
  const InterruptGuard guard(*engine);
  const paddock::SessionId session = engine->open_session();
  std::vector<PositionMass> then;
  size_t fed = 0;
  const auto feed_up_to = [&](size_t end) {
    if (end > fed) engine->feed(session, std::span(text.tokens).subspan(fed, end - fed));
    fed = end;
    then.push_back(position_mass(*engine));
  };
  for (const paddock::CompareTurn& turn : text.turns) {
    feed_up_to(static_cast<size_t>(turn.prompt_end));
  }
  feed_up_to(text.tokens.size());
  return then;
}

void weigh(const std::vector<PositionMass>& mass, Outcome& o) {
  for (RuleResult& rule : o.rules) {
    rule.layers.resize(mass.back().size());
    for (size_t turn = 0; turn < rule.views.size(); ++turn) {
      for (size_t layer = 0; layer < rule.layers.size(); ++layer) {
        rule.layers[layer] +=
            kept_mass(rule.views[turn][layer], mass[turn][layer], mass.back()[layer]);
      }
    }
  }
}

/// The turns as chat has them: what is said at once, an answer token by token.
void time_turns(const std::shared_ptr<const paddock::Model>& model, paddock::EngineOptions options,
                const ChatText& text, RuleResult& rule) {
  options.kv.policy = rule.policy;
  const auto engine = make_engine(model, options);
  const InterruptGuard guard(*engine);
  const auto all = std::span(text.tokens);
  const paddock::SessionId warm = engine->open_session();
  engine->feed(warm, all.first(1));
  engine->close_session(warm);
  const paddock::SessionId session = engine->open_session();
  int64_t fed = 0;
  const auto feed = [&](int64_t n, int64_t prompt_end) {
    engine->feed(session, all.subspan(static_cast<size_t>(fed), static_cast<size_t>(n)),
                 prompt_end);
    fed += n;
  };
  for (size_t i = 0; i < text.turns.size(); ++i) {
    const auto [prompt_end, end] = text.turns[i];
    Clock::time_point begin = Clock::now();
    if (prompt_end > fed) feed(prompt_end - fed, prompt_end);
    rule.turns[i].first_token_seconds = seconds_since(begin);
    const int64_t timed = std::min(kTimedTokens, end - fed);
    begin = Clock::now();
    for (int64_t n = 0; n < timed; ++n) feed(1, prompt_end);
    if (timed > 0) rule.turns[i].token_seconds = seconds_since(begin) / static_cast<double>(timed);
    if (end > fed) feed(end - fed, prompt_end);
  }
}

// ---- printing

/// Sums over turns.
struct Totals {
  int64_t parted = 0;  // turns in which a token would have been another
  int64_t tokens = 0, agreed = 0;
  double kl = 0, kl_max = 0;
  KeptMass mass;  // of all layers
};

Totals totals_of(const Outcome& o, const RuleResult& rule) {
  Totals sum;
  for (size_t i = 0; i < rule.turns.size(); ++i) {
    const TurnResult& turn = rule.turns[i];
    sum.parted += turn.parts_at >= 0 ? 1 : 0;
    sum.tokens += o.answer_tokens(i);
    sum.agreed += turn.agreed;
    sum.kl += turn.kl;
    sum.kl_max = std::max(sum.kl_max, turn.kl_max);
  }
  for (const KeptMass& layer : rule.layers) sum.mass += layer;
  return sum;
}

double share(double part, int64_t of) { return of > 0 ? part / static_cast<double>(of) : 0; }

Json mass_json(const KeptMass& mass) {
  return {{"of_oracle", mass.of_oracle()},
          {"of_all", mass.of_all()},
          {"kept", mass.kept},
          {"oracle", mass.oracle},
          {"all", mass.all}};
}

Json turn_json(const Outcome& o, const RuleResult& rule, size_t i) {
  const TurnResult& turn = rule.turns[i];
  const int64_t tokens = o.answer_tokens(i);
  return {{"policy", rule.policy},
          {"diverges_at", turn.parts_at >= 0 ? Json(turn.parts_at) : Json()},
          {"kl_mean", share(turn.kl, tokens)},
          {"kl_max", turn.kl_max},
          {"top1_agreement", share(static_cast<double>(turn.agreed), tokens)},
          {"left_somewhere", turn.left_somewhere},
          {"left_everywhere", turn.left_everywhere},
          {"left_per_layer", turn.left},
          {"first_token_seconds", turn.first_token_seconds},
          {"token_seconds", turn.token_seconds}};
}

Json to_json(const Outcome& o) {
  Json out = {{"tokens", o.text.tokens.size()}, {"turns", Json::array()}, {"rules", Json::array()}};
  for (size_t i = 0; i < o.text.turns.size(); ++i) {
    Json turn = {{"turn", i + 1},
                 {"prompt_end", o.text.turns[i].prompt_end},
                 {"end", o.text.turns[i].end},
                 {"rules", Json::array()}};
    for (const RuleResult& rule : o.rules) turn["rules"].push_back(turn_json(o, rule, i));
    out["turns"].push_back(std::move(turn));
  }
  for (const RuleResult& rule : o.rules) {
    const Totals sum = totals_of(o, rule);
    Json entry = {{"policy", rule.policy},
                  {"turns_diverged", sum.parted},
                  {"kl_mean", share(sum.kl, sum.tokens)},
                  {"kl_max", sum.kl_max},
                  {"top1_agreement", share(static_cast<double>(sum.agreed), sum.tokens)},
                  {"attention", mass_json(sum.mass)},
                  {"layers", Json::array()}};
    for (const KeptMass& layer : rule.layers) entry["layers"].push_back(mass_json(layer));
    out["rules"].push_back(std::move(entry));
  }
  return out;
}

std::string turns_table(const Outcome& o) {
  std::string out =
      "\n| turn | rule | says otherwise after | KL mean | top-1 | left somewhere | everywhere | "
      "layers | first token ms | ms a token |\n|---|---|---|---|---|---|---|---|---|---|\n";
  for (size_t i = 0; i < o.text.turns.size(); ++i) {
    const auto [prompt_end, end] = o.text.turns[i];
    const int64_t tokens = end - prompt_end;
    for (const RuleResult& rule : o.rules) {
      const TurnResult& t = rule.turns[i];
      const std::string parts =
          t.parts_at < 0 ? "-" : fmt::format("{} of {}", t.parts_at - prompt_end, tokens);
      const auto lost =
          std::count_if(t.left.begin(), t.left.end(), [](int64_t n) { return n > 0; });
      out +=
          fmt::format("| {} | {} | {} | {:.4f} | {:.3f} | {} of {} | {} | {} | {:.1f} | {:.2f} |\n",
                      i + 1, one_line(rule.policy), parts, share(t.kl, tokens),
                      share(static_cast<double>(t.agreed), tokens), t.left_somewhere, prompt_end,
                      t.left_everywhere, lost, 1e3 * t.first_token_seconds, 1e3 * t.token_seconds);
    }
  }
  return out;
}

std::string rules_table(const Outcome& o) {
  std::string out =
      "\n| rule | turns that say otherwise | KL mean | KL max | top-1 | attention kept | of the "
      "oracle |\n|---|---|---|---|---|---|---|\n";
  for (const RuleResult& rule : o.rules) {
    const Totals sum = totals_of(o, rule);
    out +=
        fmt::format("| {} | {} of {} | {:.4f} | {:.3f} | {:.3f} | {:.1f} % | {:.1f} % |\n",
                    one_line(rule.policy), sum.parted, rule.turns.size(), share(sum.kl, sum.tokens),
                    sum.kl_max, share(static_cast<double>(sum.agreed), sum.tokens),
                    100 * sum.mass.of_all(), 100 * sum.mass.of_oracle());
  }
  return out;
}

std::string layers_table(const Outcome& o) {
  std::string out = "\n| of the oracle, in layer |";
  std::string line = "|---|";
  for (const RuleResult& rule : o.rules) {
    out += fmt::format(" {} |", one_line(rule.policy));
    line += "---|";
  }
  out += "\n" + line + "\n";
  for (size_t layer = 0; layer < o.rules[0].layers.size(); ++layer) {
    out += fmt::format("| {} |", layer);
    for (const RuleResult& rule : o.rules) {
      out += fmt::format(" {:.1f} % |", 100 * rule.layers[layer].of_oracle());
    }
    out += "\n";
  }
  return out;
}

std::string to_text(const Outcome& o) {
  int64_t answers = 0;
  for (size_t i = 0; i < o.text.turns.size(); ++i) answers += o.answer_tokens(i);
  return fmt::format("{}: {} turns of {} tokens, {} of them answers; beside {}\n", one_line(o.name),
                     o.text.turns.size(), o.text.tokens.size(), answers,
                     one_line(o.rules[0].policy)) +
         turns_table(o) + rules_table(o) + layers_table(o);
}

std::unique_ptr<paddock::QualityMeter> make_meter(
    const std::shared_ptr<const paddock::Model>& model, const paddock::QualityOptions& options) {
  try {
    return std::make_unique<paddock::QualityMeter>(model, options);
  } catch (const paddock::Error& e) {
    const bool is_contender = e.problem().starts_with("contender");
    const std::string text = describe(e, is_contender ? "--sweep" : "--kv-policy");
    if (e.code() == paddock::ErrorCode::kInvalidArgument) throw UsageError(text);
    throw paddock::Error(e.code(), text);
  }
}

}  // namespace

int run_chat_replay(const ChatReplay& replay, const EngineArgs& args) {
  const std::vector<paddock::ChatMessage> messages =
      parse_chat_log(read_file(replay.log), replay.log == "-" ? "stdin" : replay.log);
  paddock::QualityOptions options;
  options.engine = args.engine_options();
  options.contenders = replay.sweep;
  const auto model = args.load_model();
  Outcome o;
  o.name = replay.log;
  o.text = encode_chat(
      messages, paddock::ChatTemplate(model->tokenizer(), {.template_name = replay.template_name}));
  if (o.text.unanswered > 0) {
    note(fmt::format("paddock: {} messages behind the last answer are left out\n",
                     o.text.unanswered));
  }
  options.positions = static_cast<int64_t>(o.text.tokens.size());
  if (options.engine.context == 0) options.engine.context = options.positions;
  options.engine.kv.reuse = false;  // everything is computed, and measured
  o.rules.resize(1 + replay.sweep.size());
  for (RuleResult& rule : o.rules) rule.turns.resize(o.text.turns.size());
  {
    const auto meter = make_meter(model, options);
    const InterruptGuard guard([&meter] { meter->cancel(); });
    compare(*meter, o);
  }
  weigh(measure_attention(model, options.engine, o.text), o);
  for (RuleResult& rule : o.rules) time_turns(model, options.engine, o.text, rule);
  if (args.json) {
    print_json(to_json(o), 2);
  } else {
    print(to_text(o));
  }
  return 0;
}

}  // namespace cli
