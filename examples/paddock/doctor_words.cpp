#include "doctor_words.h"

#include <fmt/format.h>

#include <cmath>

#include "advice.h"
#include "log.h"

namespace cli {
namespace {

using paddock::Ailment;
using paddock::Diagnosis;
using paddock::DoctorCause;

std::string evidence(const DoctorCause& cause, const std::string& name) {
  for (const paddock::DoctorFigure& f : cause.evidence) {
    if (f.name == name) return number_text(f.value);
  }
  return "?";
}
double value(const DoctorCause& cause, const std::string& name) {
  for (const paddock::DoctorFigure& f : cause.evidence) {
    if (f.name == name) return f.value;
  }
  return 0;
}

std::string flag_of(const DoctorCause& cause) {
  if (cause.setting == "budget") return "--kv-budget " + size_text(std::stoull(cause.value));
  if (cause.setting == "policy") return "--kv-policy " + cause.value;
  if (cause.setting == "block_size") return "--kv-block-size " + cause.value;
  if (cause.setting == "context") return "-c " + cause.value;
  if (cause.setting == "rope_factor") return "--rope-scaling yarn --rope-factor " + cause.value;
  return "";
}

CauseWords of_memory(const DoctorCause& c) {
  const auto e = [&](const char* name) { return evidence(c, name); };
  switch (c.ailment) {
    case Ailment::kPoolTooSmall:
      return {"the KV pool is too small for what ran",
              fmt::format("{} requests ended as it was full, {} times a sequence was parked, {} "
                          "reservations were refused, budgets fell {} times (which dropped {} "
                          "blocks); what was there at once would have taken {} pages of {}",
                          e("kv_full"), e("preemptions"), e("refusals"), e("budget_falls"),
                          e("elastic_trims"), e("pages_wanted"), e("pool_pages")),
              "give it room for all that was there at once, or run fewer sequences at once", ""};
    case Ailment::kGreedySequence:
      return {
          "one sequence starves the others",
          fmt::format("{} {} held {} of the pages, {} at most, at {} moments when somebody went "
                      "without",
                      value(c, "session") > 0 ? "session" : "request",
                      value(c, "session") > 0 ? e("session") : e("request"),
                      percent(value(c, "share_held")), e("pages_held_most"), e("shortages")),
          "limit each sequence to its share of the pool, or give this one a rule of its own "
          "(kv_policy)",
          ""};
    case Ailment::kBlocksTooLarge:
      return {
          "blocks are too large for these texts",
          fmt::format("pages were {} full, and {} of the pool was room in them that nothing "
                      "used; a block has {} positions",
                      percent(value(c, "fill")), percent(value(c, "pool_wasted")), e("block_size")),
          "smaller blocks waste less", ""};
    case Ailment::kBudgetBelowMemory:
      return {
          "the rule drops text that memory has room for",
          fmt::format("{} blocks were dropped, though all of it would have taken {} pages of {}",
                      e("blocks_dropped"), e("pages_full_peak"), e("pool_pages")),
          "a rule without a budget keeps everything while there is room", ""};
    default:
      return {
          "the rule's budget is smaller than the texts",
          fmt::format("{} blocks were dropped; all of it would have taken {} pages and the pool "
                      "has {}; a budget of {} positions would have kept each of them in its "
                      "layer",
                      e("blocks_dropped"), e("pages_full_peak"), e("pool_pages"),
                      e("budget_that_keeps")),
          "that is what the rule was asked for; to keep everything, more memory and a rule "
          "without a budget (--kv-policy lru)",
          ""};
  }
}

CauseWords of_prefixes(const DoctorCause& c) {
  const auto e = [&](const char* name) { return evidence(c, name); };
  switch (c.ailment) {
    case Ailment::kPrefixBroken: {
      const bool by_tokens = value(c, "by_tokens") > 0;
      return {by_tokens ? "something near the beginning of the prompts keeps them from being shared"
                        : "something near the beginning of the prompts may keep them from being "
                          "shared",
              fmt::format("of {} prompts compared with the one before {} differ early, at position "
                          "{}, {}",
                          e("prompts_compared"), e("prompts_broken"), e("differs_at"),
                          by_tokens ? fmt::format("though {} tokens in a row are equal on average",
                                                  e("equal_tokens"))
                                    : "though they are of like lengths (--trace-tokens would tell "
                                      "for sure)"),
              "put what changes (a time stamp, a name, a number) behind what stays the same", ""};
    }
    case Ailment::kPrefixNotShared:
      return {"prompts begin alike, and the rule shares nothing",
              fmt::format("{} of {} blocks of prompts ({}) had been computed before",
                          e("blocks_computed_again"), e("prompt_blocks"),
                          percent(value(c, "share_again"))),
              "rules that go by position alone (full, window, sink) and those without a budget "
              "share",
              ""};
    default:
      return {"what was kept for reuse left before it was asked for again",
              fmt::format("of {} blocks looked for {} were found, and {} had been there and were "
                          "reclaimed",
                          e("lookups"), e("hits"), e("regrets")),
              "more memory keeps them longer", ""};
  }
}

CauseWords of_text(const DoctorCause& c) {
  const auto e = [&](const char* name) { return evidence(c, name); };
  switch (c.ailment) {
    case Ailment::kWindowDropsStart:
      return {"the window has dropped the beginning of the text, and with it the instruction",
              fmt::format("{} layers lost position 0 from a length of {} on, and the text went on "
                          "to {}; the window is {}",
                          e("layers"), e("at_length"), e("longest"), e("window")),
              "sinks keep the beginning, in the same memory", ""};
    case Ailment::kBeyondContext:
      return {"positions go beyond what the model is made for",
              fmt::format("the longest text has {} positions, the model is made for {}; {} layers "
                          "look that far",
                          e("longest"), e("model_context"), e("layers")),
              "stretch RoPE and measure what it costs (perplexity --lengths), or keep within the "
              "context",
              ""};
    case Ailment::kContextFull:
      return {
          "texts reach the longest sequence that the engine takes",
          fmt::format("{} requests ended there, {} texts went on with a budget (which dropped {} "
                      "blocks); it takes {} positions, they wanted up to {}",
                      e("context_full"), e("context_falls"), e("context_trims"), e("context"),
                      e("positions_wanted")),
          "raise the context, or drop turns (chat --keep)", ""};
    case Ailment::kPolicyViolation:
      return {
          "the policy breaks its contract",
          fmt::format("{} answers were overruled and {} were too short{}", e("violations"),
                      e("shortfalls"), c.words.empty() ? "" : ", the last: " + one_line(c.words)),
          "check_policy() of paddock/testing.h says which answers are wrong", ""};
    default:
      return {"requests or steps failed",
              fmt::format("{} requests ended with an error, {} steps were not completed",
                          e("errors"), e("steps_failed")),
              "the engine's log and GenerateResult::error say what went wrong", ""};
  }
}

}  // namespace

double figure(const Diagnosis& d, const std::string& name) {
  for (const paddock::DoctorFigure& f : d.figures) {
    if (f.name == name) return f.value;
  }
  return 0;
}

std::string number_text(double value) {
  if (value == std::floor(value) && std::fabs(value) < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{:.4g}", value);
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

CauseWords words_of(const Diagnosis&, const DoctorCause& cause) {
  CauseWords words;
  switch (cause.ailment) {
    case Ailment::kPoolTooSmall:
    case Ailment::kGreedySequence:
    case Ailment::kBlocksTooLarge:
    case Ailment::kBudgetBelowMemory:
    case Ailment::kBudgetSpent:
      words = of_memory(cause);
      break;
    case Ailment::kPrefixBroken:
    case Ailment::kPrefixNotShared:
    case Ailment::kPrefixReclaimed:
      words = of_prefixes(cause);
      break;
    case Ailment::kWindowDropsStart:
    case Ailment::kBeyondContext:
    case Ailment::kContextFull:
    case Ailment::kPolicyViolation:
    case Ailment::kFailures:
      words = of_text(cause);
      break;
  }
  words.flag = flag_of(cause);
  return words;
}

std::string verdict(const Diagnosis& d) {
  if (d.causes.empty()) return "Nothing needs to change.";
  std::string out = words_of(d, d.causes[0]).title;
  out[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(out[0])));
  for (size_t i = 1; i < d.causes.size(); ++i) {
    out += (i + 1 == d.causes.size() ? "; and " : "; ") + words_of(d, d.causes[i]).title;
  }
  return out + ".";
}

std::string grounds(const Diagnosis& d) {
  const auto f = [&](const char* name) { return number_text(figure(d, name)); };
  return fmt::format(
      "{} requests ({} finished) in {} steps; {} of the pool's {} pages in use at most ({}); {} "
      "blocks dropped by rules, {} passed by windows; {} reservations refused, {} sequences "
      "parked.",
      f("requests"), f("finished"), f("steps"), f("pages_peak"), f("pool_pages"),
      percent(figure(d, "occupancy_peak")), f("removed_policy_trim"), f("removed_window"),
      f("refusals"), f("preemptions"));
}

std::string blind_spot(const Diagnosis& d) {
  const bool none_found = figure(d, "lookups") > 1 && figure(d, "hits") == 0;
  if (d.header.has_tokens || !none_found || figure(d, "requests") < 2) return "";
  return "No prompt found anything that was kept; whether long parts of them are equal only "
         "--trace-tokens can tell.";
}

std::string doctor_text(const std::string& path, const Diagnosis& d) {
  std::string out = fmt::format("{}: {}\n  {}\n", one_line(path), verdict(d), grounds(d));
  if (!d.extent.is_whole) {
    out += fmt::format("  the trace has no end: {} of {} bytes were read\n", d.extent.bytes,
                       d.extent.total);
  }
  const std::string unknown = blind_spot(d);
  if (!unknown.empty()) out += "  " + unknown + "\n";
  for (const DoctorCause& cause : d.causes) {
    const CauseWords words = words_of(d, cause);
    out += fmt::format("{}: {}\n  {}\n  {}", paddock::ailment_name(cause.ailment), words.title,
                       words.why, words.advice);
    out += words.flag.empty() ? "\n" : fmt::format(": {}\n", words.flag);
  }
  return out;
}

}  // namespace cli
