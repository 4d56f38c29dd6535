#include "explain_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "common.h"
#include "log.h"
#include "wording.h"

namespace cli {
namespace {

using paddock::ExplainedBlock;
using paddock::ExplainedLayer;
using paddock::ExplainedLoss;
using paddock::ExplainedSpan;
using paddock::RemovalReason;

std::string layers_named(const std::vector<int32_t>& layers, int32_t of) {
  if (static_cast<int32_t>(layers.size()) == of) {
    return of == 1 ? "its layer" : fmt::format("all {} layers", of);
  }
  return fmt::format("layer{} {}", layers.size() == 1 ? "" : "s", layers_text(layers));
}

/// In at most so many bytes, one line.
std::string shown(const std::string& text, size_t most = 60) {
  return one_line(beginning_of(text, most));
}

std::string when(const ExplainedLoss& loss) {
  const paddock::KvEvent& e = loss.removal.event;
  const std::string turn =
      loss.turn == 0 ? "while text was fed" : fmt::format("in turn {}", loss.turn);
  return fmt::format("{}, at step {}, when the sequence had {} positions", turn, e.step, e.length);
}

std::string why_trimmed(const ExplainedLoss& loss) {
  const paddock::KvEvent& e = loss.removal.event;
  std::string out = fmt::format("'{}' let it go", e.policy);
  if (loss.by_fall) {
    const std::string whom = loss.needed_by == 0 ? "text that was fed needed pages"
                             : loss.needed_by == loss.request
                                 ? "its own request needed pages"
                                 : fmt::format("request {} needed pages", loss.needed_by);
    out += fmt::format(" as {}: the budget fell to {} positions here", whom, loss.schedule.budget);
  } else {
    out += fmt::format(" to keep {} positions", loss.schedule.budget);
  }
  if (e.overruled) return out + "; the rule's answer was wrong, the oldest went in its place";
  out += fmt::format("; score {:.4g}, {} of {} that left", e.score, e.rank + 1, e.left_together);
  if (e.runner_up_position >= 0) {
    out += fmt::format(", the next was position {} with {:.4g}", e.runner_up_position,
                       e.runner_up_score);
  }
  return out;
}

std::string why(const ExplainedLoss& loss) {
  switch (loss.removal.event.reason) {
    case RemovalReason::kWindow:
      return fmt::format("'{}' sees no further back", loss.removal.event.policy);
    case RemovalReason::kPolicyTrim:
      return why_trimmed(loss);
    case RemovalReason::kUser:
      return "the host took it back, or changed the rules";
    case RemovalReason::kCapacity:
    case RemovalReason::kSequenceEnd:
    case RemovalReason::kPreempt:
      break;  // is no loss to the text: trace_story.cpp
  }
  return paddock::removal_reason_name(loss.removal.event.reason);
}

std::string attention(const ExplainedLoss& loss) {
  if (!loss.removal.measured) return "attention: not measured";
  const std::string last =
      loss.removal.last_used < 0
          ? "no query gave it its fair share"
          : fmt::format("its fair share last from position {}", loss.removal.last_used);
  return fmt::format("attention received: {:.4g}, {}", loss.removal.mass, last);
}

/// What would have kept it in all of these layers, computed from their decisions.
std::string remedy(const std::vector<const ExplainedLoss*>& losses) {
  const ExplainedLoss* most = losses.front();  // which needs most
  const ExplainedLoss* sinks = nullptr;
  for (const ExplainedLoss* loss : losses) {
    if (loss->removal.event.sufficient_budget > most->removal.event.sufficient_budget) most = loss;
    if (loss->with_sinks.empty()) continue;
    const auto needs = [](const ExplainedLoss* l) { return std::pair(l->sinks_budget, l->sinks); };
    if (sinks == nullptr || needs(loss) > needs(sinks)) sinks = loss;
  }
  std::string out;
  const paddock::KvEvent& e = most->removal.event;
  if (paddock::is_by_score(e.reason)) {
    out = fmt::format("kept then by a budget of {} positions", e.sufficient_budget);
    if (!most->with_budget.empty()) out += fmt::format(" ({})", most->with_budget);
  } else if (e.reason == RemovalReason::kWindow && !most->with_budget.empty()) {
    out = "seen to the end by " + most->with_budget;
  }
  if (sinks == nullptr) return out;
  if (!out.empty()) out += ", ";
  out += "for good by " + sinks->with_sinks;
  if (!sinks->sinks_fit) {
    out +=
        fmt::format(", as below {} the budget has no room for so many sinks", sinks->sinks_budget);
  }
  return out;
}

/// Layers that lost a block alike are told together.
std::string block_text(const ExplainedBlock& block, int32_t n_layers) {
  std::string out = fmt::format("  positions {} to {}, written at step {}\n", block.first_position,
                                block.first_position + block.n_tokens - 1, block.written_step);
  std::map<std::tuple<int64_t, int, std::string>, std::vector<const ExplainedLoss*>> alike;
  for (const ExplainedLoss& loss : block.losses) {
    const paddock::KvEvent& e = loss.removal.event;
    alike[{e.step, static_cast<int>(e.reason), e.policy}].push_back(&loss);
  }
  for (const auto& [key, losses] : alike) {
    std::vector<int32_t> layers;
    for (const ExplainedLoss* loss : losses) layers.push_back(loss->removal.event.layer);
    std::sort(layers.begin(), layers.end());
    const ExplainedLoss& first = *losses.front();
    out += fmt::format("    left {} {}\n", layers_named(layers, n_layers), when(first));
    out += fmt::format(
        "      {}{}\n",
        losses.size() > 1 ? fmt::format("in layer {}: ", first.removal.event.layer) : "",
        why(first));
    out += fmt::format("      {}\n", attention(first));
    const std::string helps = remedy(losses);
    if (!helps.empty()) out += fmt::format("      {}\n", helps);
  }
  for (const paddock::ExplainedProtection& p : block.protections) {
    out += p.to_step < 0
               ? fmt::format("    protected from step {} on: no rule may choose it\n", p.from_step)
               : fmt::format("    protected from step {} to step {}\n", p.from_step, p.to_step);
  }
  if (!block.kept_in.empty()) {
    out += fmt::format("    stayed in {}\n", layers_named(block.kept_in, n_layers));
  }
  if (block.asked_again > 0) {
    out += fmt::format("    {} later texts begin like it: {} found it kept\n", block.asked_again,
                       block.found_again);
  }
  if (block.reclaimed > 0) {
    out += fmt::format("    its kept pages were reclaimed in {} layers when pages were short\n",
                       block.reclaimed);
  }
  return out;
}

std::string worst_text(const ExplainedLayer& row) {
  if (!row.is_measured) return "attention not measured";
  return fmt::format("most attention {:.4g} at position {}", row.worst.mass,
                     row.worst.event.first_position);
}

}  // namespace

std::string span_text(const ExplainedSpan& span, int32_t n_layers) {
  const std::string whose = span.session != 0   ? fmt::format("session {}", span.session)
                            : span.request != 0 ? fmt::format("request {}", span.request)
                                                : "text that was fed";
  const std::string said =
      span.turn == 0
          ? ""
          : fmt::format(", {} of turn {}", span.is_answer ? "the answer" : "the prompt", span.turn);
  std::string out =
      fmt::format("positions {} to {} of sequence {} ({}{})", span.first_position,
                  span.first_position + span.n_tokens - 1, span.sequence, whose, said);
  if (!span.text.empty()) out += fmt::format(": \"{}\"", shown(span.text));
  out += "\n";
  if (span.times_parked > 0) {
    out += fmt::format("  the sequence was parked {} times, and read again\n", span.times_parked);
  }
  std::vector<const ExplainedLoss*> all;
  for (const ExplainedBlock& block : span.blocks) {
    out += block_text(block, n_layers);
    for (const ExplainedLoss& loss : block.losses) all.push_back(&loss);
  }
  const std::string helps = all.empty() || span.blocks.size() == 1 ? "" : remedy(all);
  if (!helps.empty()) out += fmt::format("  all of it: {}\n", helps);
  if (span.blocks.empty()) out += "  nothing of it left\n";
  return out;
}

std::string summary_text(const paddock::Explanation& e) {
  std::string out = fmt::format("{:>5}  {:<12} {:>8}  {:<34} {}\n", "layer", "reason", "blocks",
                                "first", "worst");
  bool any = false;
  for (const ExplainedLayer& row : e.layers) {
    if (row.reason == RemovalReason::kSequenceEnd) continue;
    any = true;
    const std::string first =
        fmt::format("position {} at step {}", row.first.event.first_position, row.first.event.step);
    out +=
        fmt::format("{:>5}  {:<12} {:>8}  {:<34} {}\n", row.layer,
                    paddock::removal_reason_name(row.reason), row.blocks, first, worst_text(row));
  }
  return any ? out : "nothing left but with the end of its sequence\n";
}

}  // namespace cli
