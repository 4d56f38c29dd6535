#include "run_again.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "log.h"
#include "recorded.h"
#include "wording.h"

namespace cli {
namespace {

using paddock::Error;
using paddock::ErrorCode;
using paddock::ExplainedSpan;

/// Feeds the span's sequence as it was told turn by turn; the trace of that.
std::string trace_again(const std::shared_ptr<const paddock::Model>& model,
                        paddock::EngineOptions options, const ExplainedSpan& span) {
  std::string bytes;
  options.max_sequences = 1;
  options.kv.reuse = false;
  options.kv.trace = {.sink = [&](std::string_view more) { bytes += more; }, .times = false};
  paddock::Engine engine(model, options);
  const InterruptGuard guard(engine);
  const paddock::SessionId session = engine.open_session();
  const auto feed_to = [&](int64_t end, int64_t prompt_end) {
    const int64_t from = engine.session_length(session);
    if (end <= from) return;
    engine.feed(
        session,
        std::span(span.tokens).subspan(static_cast<size_t>(from), static_cast<size_t>(end - from)),
        prompt_end);
  };
  const auto length = static_cast<int64_t>(span.tokens.size());
  for (const paddock::ExplainedTurn& turn : span.turns) {
    feed_to(std::min(turn.begin, length), 0);
    if (turn.prompt_end <= length) feed_to(turn.prompt_end, turn.prompt_end);
  }
  feed_to(length, 0);
  return bytes;
}

SpanAgain look_again(const std::string& bytes, const ExplainedSpan& span, int64_t block_size) {
  SpanAgain again;
  for (int64_t p = span.first_position / block_size * block_size;
       p < span.first_position + span.n_tokens; p += block_size) {
    const paddock::Explanation e =
        paddock::explain(std::string_view(bytes), "the run again", {.position = p});
    for (const ExplainedSpan& found : e.spans) {
      for (const paddock::ExplainedBlock& block : found.blocks) {
        SpanAgain::Block& out = again.blocks.emplace_back();
        out.first_position = block.first_position;
        for (const paddock::ExplainedLoss& loss : block.losses) {
          out.left.push_back(loss.removal.event.layer);
        }
        std::sort(out.left.begin(), out.left.end());
        out.stayed = block.kept_in;
      }
    }
  }
  return again;
}

SpanAgain try_setting(const std::shared_ptr<const paddock::Model>& model, const EngineArgs& own,
                      const std::string& rule, const std::string& budget,
                      const ExplainedSpan& span) {
  EngineArgs settings = own;
  if (!rule.empty()) settings.kv_policy = rule;
  if (!budget.empty()) settings.kv_budget = budget;
  SpanAgain again;
  try {
    const std::string bytes = trace_again(model, settings.engine_options(), span);
    again = look_again(bytes, span, settings.kv_block);
  } catch (const Error& e) {
    if (!is_refusal(e)) throw;
    again.refused = one_line(describe(e));
  }
  again.policy = rule;
  again.budget = budget;
  return again;
}

std::string setting_text(const SpanAgain& again) {
  std::string out;
  if (!again.policy.empty()) out += "under " + again.policy;
  if (!again.budget.empty()) {
    out += fmt::format("{}with --kv-budget {}", out.empty() ? "" : " ", again.budget);
  }
  return out;
}

std::string layers_of(const std::vector<int32_t>& layers, int32_t n_layers) {
  if (layers.empty()) return "no layer";
  return static_cast<int32_t>(layers.size()) == n_layers ? "every layer"
                                                         : "layers " + layers_text(layers);
}

}  // namespace

std::vector<std::vector<SpanAgain>> run_again(const TryArgs& args,
                                              const paddock::Explanation& explanation) {
  const auto model = args.engine.load_model();
  check_model(*model, args.engine.model, explanation.header);
  const EngineArgs own = as_recorded(args.engine, explanation.header, explanation.policy,
                                     explanation.header.pool_pages);
  std::vector<std::string> rules = args.rules;
  if (rules.empty()) rules.emplace_back();
  std::vector<std::vector<SpanAgain>> all;
  for (const ExplainedSpan& span : explanation.spans) {
    if (static_cast<int64_t>(span.tokens.size()) != span.length ||
        std::count(span.tokens.begin(), span.tokens.end(), -1) > 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("-m: the trace has not all tokens of sequence {}, so it cannot be "
                              "run again; record it with --trace-tokens",
                              span.sequence));
    }
    std::vector<SpanAgain>& tried = all.emplace_back();
    for (const std::string& rule : rules) {
      tried.push_back(try_setting(model, own, rule, args.budget, span));
    }
  }
  return all;
}

std::string again_text(const std::vector<SpanAgain>& tried, int32_t n_layers) {
  std::string out;
  for (const SpanAgain& again : tried) {
    out += fmt::format("  measured by running its sequence again, {}:\n", setting_text(again));
    if (!again.refused.empty()) out += fmt::format("    refused: {}\n", again.refused);
    for (const SpanAgain::Block& block : again.blocks) {
      out +=
          fmt::format("    the block of position {}: left {}, stayed in {}\n", block.first_position,
                      layers_of(block.left, n_layers), layers_of(block.stayed, n_layers));
    }
  }
  return out;
}

Json again_json(const std::vector<SpanAgain>& tried) {
  Json out = Json::array();
  for (const SpanAgain& again : tried) {
    Json one = {{"policy", again.policy.empty() ? Json() : Json(again.policy)},
                {"kv_budget", again.budget.empty() ? Json() : Json(again.budget)}};
    if (!again.refused.empty()) one["refused"] = again.refused;
    one["blocks"] = Json::array();
    for (const SpanAgain::Block& block : again.blocks) {
      one["blocks"].push_back({{"first_position", block.first_position},
                               {"left", block.left},
                               {"kept_in", block.stayed}});
    }
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace cli
