#include "doctor_rerun.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "doctor_words.h"
#include "log.h"
#include "measuring.h"
#include "recorded.h"
#include "wording.h"

namespace cli {
namespace {

using paddock::Diagnosis;
using paddock::DoctorCause;
using Tokens = std::vector<paddock::TokenId>;

constexpr size_t kLeastTokens = 32 + kOneByOne;  // enough to read, and those to decode

/// What counts as prompt, for rules that decide where it ends.
int64_t prompt_of(const Tokens& tokens) { return static_cast<int64_t>(tokens.size()) * 2 / 3; }

/// The run's settings with what a cause proposes.
EngineArgs with_proposal(EngineArgs settings, const DoctorCause& cause) {
  if (cause.setting == "budget") settings.kv_budget = cause.value;
  if (cause.setting == "policy") settings.kv_policy = cause.value;
  if (cause.setting == "block_size") settings.kv_block = std::stoi(cause.value);
  if (cause.setting == "context") {
    settings.context = std::stoll(cause.value);
    settings.kv_budget.clear();  // what so many positions take
  }
  if (cause.setting == "rope_factor") {
    settings.rope_scaling = "yarn";
    settings.rope_factor = cause.value;
    settings.context = 0;
    settings.kv_budget.clear();
  }
  return settings;
}

/// Fed as a prompt would be, but for the last 16 tokens, which come one by one as an answer's do.
void measure_speed(const std::shared_ptr<const paddock::Model>& model,
                   paddock::EngineOptions options, const Tokens& tokens, Rerun& row) {
  std::string bytes;
  options.max_sequences = 1;
  options.kv.reuse = false;
  options.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  {
    paddock::Engine engine(model, options);
    const InterruptGuard guard(engine);
    const auto all = std::span(tokens);
    const size_t n_prompt = all.size() - kOneByOne;
    const auto prompt_end = prompt_of(tokens);
    const paddock::SessionId session = engine.open_session();
    auto begin = Clock::now();
    engine.feed(session, all.first(n_prompt), prompt_end);
    row.prefill_rate = static_cast<double>(n_prompt) / seconds_since(begin);
    begin = Clock::now();
    for (size_t i = n_prompt; i < all.size(); ++i) engine.feed(session, all.subspan(i, 1));
    row.decode_rate = static_cast<double>(kOneByOne) / seconds_since(begin);
  }
  const Diagnosis d = paddock::diagnose(std::string_view(bytes), "the run again");
  row.pages = static_cast<int64_t>(figure(d, "pages_peak"));
  row.page_bytes = static_cast<uint64_t>(d.header.page_bytes);
  row.left = static_cast<int64_t>(figure(d, "removed_window") + figure(d, "removed_policy_trim"));
  for (const DoctorCause& c : d.causes) row.found.emplace_back(ailment_name(c.ailment));
}

/// Beside full with f16; returns full's perplexity of what follows the prompt.
double measure_quality(const std::shared_ptr<const paddock::Model>& model,
                       paddock::EngineOptions options, const Tokens& tokens, Rerun& row) {
  options.max_sequences = 1;
  paddock::QualityOptions both;
  both.engine = options;
  both.engine.kv = {};
  both.engine.context = static_cast<int64_t>(tokens.size());
  both.other_engines = {options};
  paddock::QualityMeter meter(model, both);
  const InterruptGuard guard([&meter] { meter.cancel(); });
  Nearness full, own;
  paddock::CompareOptions how;
  how.prompt_tokens = prompt_of(tokens);
  how.on_progress = progress("run again");
  how.on_position = [&](int64_t at, std::span<const paddock::PositionQuality> rules) {
    if (at < how.prompt_tokens) return true;
    full.add(rules[0]);
    own.add(rules[1]);
    return true;
  };
  meter.compare(tokens, how);
  row.perplexity = std::exp(own.mean(own.nll));
  row.kl = own.mean(own.kl);
  row.top1 = own.mean(static_cast<double>(own.agreed));
  return std::exp(full.mean(full.nll));
}

/// What is refused is a row, too: so it would have been for who types the flag.
double measure(const EngineArgs& settings, const std::shared_ptr<const paddock::Model>& model,
               const Tokens& tokens, Rerun& row) {
  try {
    const paddock::EngineOptions options = settings.engine_options();
    measure_speed(model, options, tokens, row);
    return measure_quality(model, options, tokens, row);
  } catch (const paddock::Error& e) {
    if (!is_refusal(e)) throw;
    row.refused = one_line(describe(e));
    return 0;
  }
}

std::string name_of(const Rerun& row) { return row.flag.empty() ? "as it ran" : row.flag; }

std::string heading(const Reruns& r) {
  return fmt::format(
      "measured by running again: {} tokens of {} as one sequence with {}; of the last third "
      "perplexity under full is {:.3f}",
      r.tokens, one_line(r.text), one_line(r.model), r.full_perplexity);
}

std::string found_text(const Rerun& row) {
  std::string out;
  for (const std::string& name : row.found) out += (out.empty() ? "" : ", ") + name;
  return out.empty() ? "nothing" : out;
}

/// What was measured, as a row of either table has it.
std::vector<std::string> cells(const Rerun& row) {
  return {fmt::format("{:.1f}", row.prefill_rate),
          fmt::format("{:.1f}", row.decode_rate),
          fmt::format("{:.2f}", static_cast<double>(row.pages) *
                                    static_cast<double>(row.page_bytes) / (1024.0 * 1024.0)),
          fmt::format("{}", row.left),
          fmt::format("{:.3f}", row.perplexity),
          row.kl ? fmt::format("{:.4f}", *row.kl) : "-",
          row.top1 ? fmt::format("{:.3f}", *row.top1) : "-",
          found_text(row)};
}

constexpr const char* kColumns[] = {
    "prefill tokens/s", "decode tokens/s", "KV MiB at most", "blocks that left",
    "perplexity",       "KL from full",    "top-1",          "found then"};

}  // namespace

Reruns try_proposals(const RerunArgs& args, const Diagnosis& d) {
  const auto model = args.engine.load_model();
  check_model(*model, args.engine.model, d.header);
  Reruns out;
  out.model = args.engine.model;
  out.text = args.file == "-" ? "stdin" : args.file;
  const Tokens tokens = encode(*model->tokenizer(), "", args.file, {.parse_special = true});
  if (tokens.size() < kLeastTokens) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         fmt::format("-f {}: it has only {} tokens; {} are needed to measure with",
                                     args.file, tokens.size(), kLeastTokens));
  }
  out.tokens = static_cast<int64_t>(tokens.size());
  const EngineArgs own =
      as_recorded(args.engine, d.header, d.policy, static_cast<int64_t>(figure(d, "pool_pages")));
  out.full_perplexity = measure(own, model, tokens, out.rows.emplace_back());
  for (const DoctorCause& cause : d.causes) {
    if (cause.setting.empty()) continue;
    const EngineArgs settings = with_proposal(own, cause);
    const bool is_stretched = cause.setting == "rope_factor";
    Rerun row;
    row.flag = words_of(d, cause).flag;
    const double full =
        measure(settings, is_stretched ? settings.load_model() : model, tokens, row);
    if (is_stretched) {
      row.kl.reset();  // full itself is another there
      row.top1.reset();
    } else if (out.full_perplexity == 0) {
      out.full_perplexity = full;
    }
    out.rows.push_back(std::move(row));
  }
  return out;
}

std::string reruns_text(const Reruns& reruns) {
  std::string out = heading(reruns) + "\n| setting |", rule = "|---|";
  for (const char* column : kColumns) {
    out += fmt::format(" {} |", column);
    rule += "---|";
  }
  out += "\n" + rule + "\n";
  for (const Rerun& row : reruns.rows) {
    out += fmt::format("| {} |", name_of(row));
    if (!row.refused.empty()) {
      out += fmt::format(" refused: {} |\n", row.refused);
      continue;
    }
    for (const std::string& cell : cells(row)) out += fmt::format(" {} |", cell);
    out += "\n";
  }
  return out;
}

Json reruns_json(const Reruns& reruns) {
  Json out = {{"model", reruns.model},
              {"text", reruns.text},
              {"tokens", reruns.tokens},
              {"full_perplexity", reruns.full_perplexity},
              {"results", Json::array()}};
  for (const Rerun& row : reruns.rows) {
    Json result = {{"flag", row.flag}};
    if (!row.refused.empty()) {
      result["refused"] = row.refused;
    } else {
      result["prefill_tokens_per_second"] = row.prefill_rate;
      result["decode_tokens_per_second"] = row.decode_rate;
      result["pages_peak"] = row.pages;
      result["kv_bytes_peak"] = static_cast<uint64_t>(row.pages) * row.page_bytes;
      result["blocks_left"] = row.left;
      result["perplexity"] = row.perplexity;
      result["kl_mean"] = row.kl ? Json(*row.kl) : Json();
      result["top1_agreement"] = row.top1 ? Json(*row.top1) : Json();
      result["found"] = row.found;
    }
    out["results"].push_back(std::move(result));
  }
  return out;
}

std::string reruns_html(const Reruns& reruns) {
  std::string out = fmt::format("<p>{}.</p>\n<div class='wide'><table><tr><th>setting</th>",
                                escaped(heading(reruns)));
  for (const char* column : kColumns) out += fmt::format("<th class='n'>{}</th>", column);
  out += "</tr>\n";
  for (const Rerun& row : reruns.rows) {
    out += fmt::format("<tr><td>{}</td>", escaped(name_of(row)));
    if (!row.refused.empty()) {
      out += fmt::format("<td colspan='{}'>refused: {}</td>", std::size(kColumns),
                         escaped(row.refused));
    } else {
      for (const std::string& cell : cells(row)) {
        out += fmt::format("<td class='n'>{}</td>", escaped(cell));
      }
    }
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

}  // namespace cli
