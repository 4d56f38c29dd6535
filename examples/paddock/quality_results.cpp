#include "quality_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace cli {
namespace {

Json contender_json(const QualityOutcome& outcome, size_t i) {
  const paddock::PolicyQuality& q = outcome.quality.contenders[i];
  Json out = {{"policy", q.policy}, {"perplexity", q.perplexity},
              {"nll", q.nll},       {"kl_mean", q.kl_mean},
              {"kl_max", q.kl_max}, {"top1_agreement", q.top1_agreement}};
  if (outcome.recall) out["facts_recalled"] = outcome.recall->contenders[i].recalled;
  return out;
}

void add_kept(Json& out, const paddock::PolicyQuality& q) {
  out["kept_mean"] = q.kept.mean;
  out["kept_max"] = q.kept.max;
  out["kl_max_position"] = q.kl_max_position;
  out["layers"] = Json::array();
  for (const paddock::KeptTokens& layer : q.layers) {
    out["layers"].push_back({{"kept_mean", layer.mean}, {"kept_max", layer.max}});
  }
}

Json facts_json(const QualityOutcome& outcome) {
  const paddock::RecallReport& recall = *outcome.recall;
  Json list = Json::array();
  for (size_t i = 0; i < outcome.facts.size(); ++i) {
    Json fact = {{"statement", outcome.facts[i].statement},
                 {"depth", outcome.facts[i].depth},
                 {"position", recall.positions[i]},
                 {"recalled", recall.baseline.facts[i].recalled},
                 {"answer_nll", recall.baseline.facts[i].answer_nll},
                 {"contenders", Json::array()}};
    for (const paddock::PolicyRecall& contender : recall.contenders) {
      fact["contenders"].push_back({{"policy", contender.policy},
                                    {"recalled", contender.facts[i].recalled},
                                    {"answer_nll", contender.facts[i].answer_nll}});
    }
    list.push_back(std::move(fact));
  }
  return {{"planted", outcome.facts.size()},
          {"recalled", recall.baseline.recalled},
          {"tokens", recall.tokens},
          {"list", std::move(list)}};
}

/// A table that is Markdown and legible as it stands.
std::string sweep_table(const QualityOutcome& outcome) {
  size_t width = 4;
  const auto& contenders = outcome.quality.contenders;
  for (const auto& q : contenders) width = std::max(width, q.policy.size());
  width = std::max(width, outcome.quality.baseline.policy.size());
  const bool facts = outcome.recall.has_value();
  std::string out =
      fmt::format("| {:<{}} | {:>9} | {:>8} | {:>10} | {:>7} | {:>8} | {:>7} | {:>6} |{}\n", "rule",
                  width, "kept mean", "kept max", "perplexity", "nll", "KL mean", "KL max", "top-1",
                  facts ? " facts |" : "");
  out += fmt::format(
      "|{:-<{}}|----------:|---------:|-----------:|--------:|---------:|--------:|"
      "-------:|{}\n",
      "", width + 2, facts ? "------:|" : "");
  const auto row = [&](const paddock::PolicyQuality& q, const paddock::PolicyRecall* recall,
                       size_t of) {
    out += fmt::format(
        "| {:<{}} | {:>9.1f} | {:>8} | {:>10.3f} | {:>7.4f} | {:>8.4f} | {:>7.3f} | {:>6.4f} |",
        q.policy, width, q.kept.mean, q.kept.max, q.perplexity, q.nll, q.kl_mean, q.kl_max,
        q.top1_agreement);
    if (recall != nullptr)
      out += fmt::format(" {:>5} |", fmt::format("{}/{}", recall->recalled, of));
    out += "\n";
  };
  const paddock::RecallReport* recall = facts ? &*outcome.recall : nullptr;
  row(outcome.quality.baseline, facts ? &recall->baseline : nullptr, outcome.facts.size());
  for (size_t i = 0; i < contenders.size(); ++i) {
    row(contenders[i], facts ? &recall->contenders[i] : nullptr,
        facts ? static_cast<size_t>(recall->baseline.recalled) : 0);
  }
  return out;
}

}  // namespace

Json to_json(const QualityOutcome& outcome) {
  const paddock::QualityReport& quality = outcome.quality;
  Json out = {{"tokens", quality.tokens},
              {"scored", quality.scored},
              {"nll", quality.baseline.nll},
              {"perplexity", quality.baseline.perplexity},
              {"policy", quality.baseline.policy}};
  if (outcome.sweep) {
    out["kept_mean"] = quality.baseline.kept.mean;
    out["kept_max"] = quality.baseline.kept.max;
    out["sweep"] = Json::array();
    for (size_t i = 0; i < quality.contenders.size(); ++i) {
      Json row = contender_json(outcome, i);
      add_kept(row, quality.contenders[i]);
      out["sweep"].push_back(std::move(row));
    }
  } else if (!quality.contenders.empty()) {
    out["against"] = contender_json(outcome, 0);
  }
  if (outcome.recall) out["facts"] = facts_json(outcome);
  return out;
}

std::string to_text(const QualityOutcome& outcome) {
  const paddock::PolicyQuality& own = outcome.quality.baseline;
  if (outcome.sweep) return sweep_table(outcome);
  std::string text = fmt::format("{} tokens scored under {}: perplexity {:.4f} (nll {:.6f})\n",
                                 outcome.quality.scored, own.policy, own.perplexity, own.nll);
  if (outcome.recall) {
    text += fmt::format("facts recalled: {} of {}\n", outcome.recall->baseline.recalled,
                        outcome.facts.size());
  }
  for (const paddock::PolicyQuality& q : outcome.quality.contenders) {
    text += fmt::format(
        "against {}: perplexity {:.4f}, KL mean {:.6f}, max {:.6f}, top-1 agreement {:.4f}\n",
        q.policy, q.perplexity, q.kl_mean, q.kl_max, q.top1_agreement);
    if (!outcome.recall) continue;
    text += fmt::format("facts recalled: {} of these {}\n", outcome.recall->contenders[0].recalled,
                        outcome.recall->baseline.recalled);
  }
  return text;
}

}  // namespace cli
