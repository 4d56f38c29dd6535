// paddock perplexity: one sequence, every token scored from the second on; with --against or
// --sweep, other policies in lockstep; with --facts, whether what was said is remembered.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "common.h"
#include "kv_trace.h"
#include "lengths.h"
#include "quality_plot.h"
#include "quality_results.h"

namespace cli {
namespace {

struct Args {
  EngineArgs engine;
  std::string file, tokens_file, against, svg, per_position;
  std::vector<std::string> sweep;
  int64_t prompt_tokens = 0;
  std::optional<int64_t> first;
  std::optional<int> facts;
  std::string lengths;
  TraceArgs trace;
};

void check_usage(const Args& args) {
  const auto refuse = [](const char* option, int64_t value, const char* right) {
    throw UsageError(fmt::format("{} {}: must be {}", option, value, right));
  };
  if (args.prompt_tokens < 0) refuse("--prompt-tokens", args.prompt_tokens, "0 or more");
  if (args.first && *args.first < 2) refuse("--first", *args.first, "2 or more");
  if (!args.svg.empty() && args.svg == args.per_position) {
    throw UsageError(
        fmt::format("--svg {}: --per-position writes there too; name two files", args.svg));
  }
  if (args.facts && (*args.facts < 1 || *args.facts > paddock::kMaxFacts)) {
    throw UsageError(
        fmt::format("--facts {}: must be from 1 to {}", *args.facts, paddock::kMaxFacts));
  }
  if (!args.lengths.empty() && !args.trace.file.empty()) {
    throw UsageError("--kv-trace: records one engine; leave --lengths out");
  }
}

std::vector<paddock::TokenId> read_text(const Args& args, const paddock::Model& model) {
  std::vector<paddock::TokenId> tokens =
      args.tokens_file.empty() ? encode(*model.tokenizer(), "", args.file, {.parse_special = true})
                               : read_tokens(args.tokens_file);
  if (!args.first) return tokens;
  if (*args.first > static_cast<int64_t>(tokens.size())) {
    throw paddock::Error(
        paddock::ErrorCode::kInvalidArgument,
        fmt::format("--first {}: the text has only {} tokens", *args.first, tokens.size()));
  }
  tokens.resize(static_cast<size_t>(*args.first));
  return tokens;
}

std::unique_ptr<paddock::QualityMeter> make_meter(
    const Args& args, const std::shared_ptr<const paddock::Model>& model,
    const paddock::QualityOptions& options) {
  try {
    return std::make_unique<paddock::QualityMeter>(model, options);
  } catch (const paddock::Error& e) {
    // A contender is set by another option than the baseline.
    const char* contender = args.against.empty() ? "--sweep" : "--against";
    const std::string text =
        describe(e, e.problem().starts_with("contender") ? contender : "--kv-policy");
    if (e.code() == paddock::ErrorCode::kInvalidArgument) throw UsageError(text);
    throw paddock::Error(e.code(), text);
  }
}

/// Whether the layer's rule decides once, where a prompt ends.
bool decides_once(const paddock::KvLayerStats& layer, size_t n_layers) {
  const auto rule = paddock::make_policy(layer.policy);
  return rule->schedule(layer.layer, static_cast<int32_t>(n_layers)).every == 0;
}

/// Says which rules that decide where a prompt ends never did.
void note_idle_rules(const Args& args, const paddock::QualityMeter& meter, size_t n_rules) {
  for (size_t i = 0; i < n_rules; ++i) {
    const paddock::KvStats stats = meter.engine(i).kv_stats();
    for (const paddock::KvLayerStats& layer : stats.layers) {
      if (layer.trim_decisions > 0 || !decides_once(layer, stats.layers.size())) continue;
      note(fmt::format(
          "paddock: {} never acted: it decides once, where the prompt ends; {}\n", layer.policy,
          args.prompt_tokens > 0
              ? fmt::format("the first {} tokens are no more than it keeps", args.prompt_tokens)
              : "say where with --prompt-tokens N"));
      break;
    }
  }
}

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

/// Figures of every scored token, one row each.
class PositionFile {
 public:
  PositionFile(const std::string& path, std::span<const paddock::TokenId> tokens,
               const std::string& baseline, const std::vector<std::string>& contenders)
      : file_(path), tokens_(tokens) {
    std::string header = "position,token," + quoted("nll " + baseline);
    for (const std::string& rule : contenders) {
      for (const char* column : {"nll ", "kl ", "top1 "}) header += "," + quoted(column + rule);
    }
    file_.write(header + "\n");
  }
  void write(int64_t position, std::span<const paddock::PositionQuality> rules) {
    std::string line =
        fmt::format("{},{},{:.9g}", position, tokens_[static_cast<size_t>(position)], rules[0].nll);
    for (const paddock::PositionQuality& rule : rules.subspan(1)) {
      line += fmt::format(",{:.9g},{:.9g},{:d}", rule.nll, rule.kl, rule.agrees);
    }
    file_.write(line + "\n");
  }
  void finish() { file_.finish(); }

 private:
  OutputFile file_;
  std::span<const paddock::TokenId> tokens_;
};

/// "KV cache: blocks of 16 positions, budget 1GiB".
std::string budget_text(const Args& args, const paddock::EngineOptions& options) {
  const std::string type = args.engine.kv_type.empty() ? "" : args.engine.kv_type + ", ";
  const std::string pool =
      args.engine.kv_budget.empty() ? "what the rules need" : args.engine.kv_budget;
  return fmt::format("KV cache: {}blocks of {} positions, budget {}", type, options.kv.block_size,
                     pool);
}

std::string plot(const Args& args, const paddock::EngineOptions& options,
                 const paddock::QualityReport& quality) {
  const auto point = [](const paddock::PolicyQuality& q) {
    return PlotPoint{q.policy, q.kept.mean, q.perplexity, q.kl_mean};
  };
  std::vector<PlotPoint> points;
  for (const paddock::PolicyQuality& q : quality.contenders) points.push_back(point(q));
  const auto name = [](const std::string& path) {
    const std::filesystem::path whole(path);
    return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
  };
  const std::string text = args.file.empty() ? args.tokens_file : args.file;
  const PlotCaption caption{
      name(args.engine.model),
      fmt::format("{}, {} tokens scored", text == "-" ? "stdin" : name(text), quality.scored),
      budget_text(args, options)};
  return quality_plot(caption, point(quality.baseline), points);
}

// ---- the command

/// --lengths: the text's beginning under each factor.
int run_by_length(const Args& args) {
  const std::vector<int64_t> lengths = parse_lengths(args.lengths);
  std::vector<double> factors = {0};  // as the file says
  if (!args.engine.rope_factor.empty()) factors = parse_factors(args.engine.rope_factor);
  const std::vector<paddock::TokenId> tokens = read_text(args, *args.engine.load_model(factors[0]));
  const auto n = static_cast<int64_t>(tokens.size());
  if (n < lengths.back()) {
    throw UsageError(fmt::format("--lengths {}: the text has only {} tokens", args.lengths, n));
  }
  return run_lengths(args.engine, tokens, lengths, factors);
}

int run(const Args& args) {
  check_usage(args);
  if (!args.lengths.empty()) return run_by_length(args);
  paddock::QualityOptions options;
  options.engine = args.engine.engine_options();
  options.contenders = args.sweep;
  if (!args.against.empty()) options.contenders = {args.against};
  const auto model = args.engine.load_model();
  const std::vector<paddock::TokenId> tokens = read_text(args, *model);
  QualityOutcome outcome;
  outcome.sweep = !args.sweep.empty();
  if (args.facts) outcome.facts = paddock::make_facts(*args.facts);
  options.positions = static_cast<int64_t>(tokens.size());
  if (args.facts) options.positions += paddock::recall_tokens(*model->tokenizer(), outcome.facts);
  // One sequence: where a layer sees everything, the context must hold the text.
  if (options.engine.context == 0) options.engine.context = options.positions;
  TraceFile trace(args.trace, options.engine);
  const auto meter = make_meter(args, model, options);
  trace.begin();
  std::optional<PositionFile> positions;
  std::optional<OutputFile> svg;
  if (!args.per_position.empty()) {
    positions.emplace(args.per_position, tokens, args.engine.kv_policy, options.contenders);
  }
  if (!args.svg.empty()) svg.emplace(args.svg);

  const InterruptGuard guard([&meter] { meter->cancel(); });
  try {
    paddock::CompareOptions compare;
    compare.prompt_tokens = args.prompt_tokens;
    compare.on_progress = progress("text");
    if (positions) {
      compare.on_position = [&](int64_t at, std::span<const paddock::PositionQuality> rules) {
        positions->write(at, rules);
        return true;
      };
    }
    outcome.quality = meter->compare(tokens, compare);
    if (args.facts) {
      outcome.recall = meter->recall(tokens, outcome.facts, {.on_progress = progress("facts")});
    }
  } catch (const paddock::Error& e) {
    if (e.code() == paddock::ErrorCode::kCancelled && InterruptGuard::interrupted()) return 130;
    throw;
  }
  note_idle_rules(args, *meter, 1 + options.contenders.size());
  trace.check();
  if (positions) positions->finish();
  if (svg) {
    svg->write(plot(args, options.engine, outcome.quality));
    svg->finish();
  }
  if (args.engine.json) {
    print_json(to_json(outcome));
  } else {
    print(to_text(outcome));
  }
  return 0;
}

}  // namespace

void add_perplexity(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command = tool.add("perplexity", "how well the model predicts a text");
  args->engine.add_to(command);
  Options input = command.one_of("text");
  input.add("-f,--file", args->file, "the text, '-' for stdin; no BOS is added").not_empty();
  input.add("--tokens-file", args->tokens_file, "a JSON array of ids").not_empty();
  const Option first = command.add("--first", args->first, "only the first N tokens of the text");
  const Option prompt = command.add("--prompt-tokens", args->prompt_tokens,
                                    "the first N tokens are prompt, for rules that care");
  const Option against =
      command.add("--against", args->against, "a second policy, compared in lockstep").not_empty();
  const Option sweep =
      command.add("--sweep", args->sweep, "a policy to compare, once for each; prints a table")
          .one_at_a_time()
          .not_empty()
          .excludes(against);
  const Option lengths =
      command
          .add("--lengths", args->lengths,
               "the first 1k,2k,... positions by themselves; with --rope-factor 1,2,... under each "
               "factor; prints a table")
          .not_empty()
          .excludes(against)
          .excludes(sweep)
          .excludes(first)
          .excludes(prompt);
  command.add("--svg", args->svg, "draw quality against positions kept into this file")
      .output_file()
      .needs(sweep);
  command
      .add("--facts", args->facts,
           "hide N facts in the text, ask for them after it, count what is recalled")
      .excludes(lengths);
  command.add("--per-position", args->per_position, "write every token's figures to this CSV file")
      .output_file()
      .excludes(lengths);
  args->trace.add_to(command);
  command.runs([args] { return run(*args); });
}

}  // namespace cli
