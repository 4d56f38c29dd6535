#include "advise_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "log.h"

namespace cli {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

std::string name_of(const Candidate& c) {
  return c.change.empty() ? c.options.kv.policy
                          : fmt::format("{}, {}", c.options.kv.policy, c.change);
}

std::string settings_text(const Candidate& c) {
  return fmt::format("{} | {} | {}", paddock::kv_type_name(c.kv_type), c.options.kv.block_size,
                     c.options.batch_size);
}

std::string candidates_table(const Advice& a) {
  std::string out =
      "\n| | rule | KV type | block | -b | KV pool MiB, computed | all MiB, computed | fits | "
      "prefill tokens/s, measured | decode tokens/s, measured | KL mean, measured | top-1, "
      "measured "
      "| facts, measured |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const Candidate& c : a.candidates) {
    std::string facts = "-";
    if (c.quality && c.quality->recalled) {
      facts = fmt::format("{} of {}", *c.quality->recalled, a.full->recalled.value_or(0));
    }
    out += fmt::format(
        "| {} | {} | {} | {:.2f} | {:.1f} | {} | {} | {} | {} | {} | {} |\n",
        c.is_on_front ? "*" : "", one_line(c.options.kv.policy), settings_text(c),
        static_cast<double>(c.pool_bytes) / kMiB, static_cast<double>(c.total_bytes) / kMiB,
        c.fits ? "yes" : "no", c.speed ? fmt::format("{:.1f}", c.speed->prefill_rate) : "-",
        c.speed ? fmt::format("{:.1f}", c.speed->decode_rate) : "-",
        !c.quality
            ? "-"
            : fmt::format(
                  "{:.4f}{}", c.quality->kl_mean,
                  c.quality->dropped || c.options.kv.policy == "full" ? "" : " (nothing left)"),
        c.quality ? fmt::format("{:.3f}", c.quality->top1_agreement) : "-", facts);
  }
  return out +
         "*: on the Pareto front of pool, decode speed (within 5 %), KL and facts; -: not "
         "measured\n";
}

std::string batches_table(const Advice& a) {
  if (a.batches.empty()) return "";
  std::string out = fmt::format(
      "\n{}, prompts of {} tokens and 16 more each, measured:\n"
      "| sequences | prefill tokens/s | decode tokens/s | gap p50 ms | gap p99 ms | KV pages | "
      "preemptions |\n|---|---|---|---|---|---|---|\n",
      one_line(name_of(a.candidates[*a.verdict.best])), a.batch_prompt);
  for (const ParallelRow& row : a.batches) {
    out += fmt::format("| {} | {:.1f} | {:.1f} | {:.2f} | {:.2f} | {} | {} |\n", row.parallel,
                       row.prefill_rate, row.decode_rate, row.gap_p50, row.gap_p99, row.pages_peak,
                       row.preemptions);
  }
  return out;
}

/// A line for the shell.
std::string command_of(const Advice& a) {
  const std::string flags = flags_of(a.candidates[*a.verdict.best]);
  std::string quoted = "'";
  for (const char ch : a.room.model) quoted += ch == '\'' ? "'\\''" : std::string(1, ch);
  quoted += "'";
  if (a.users() > 1) {
    return fmt::format("paddock generate -m {} --parallel requests.jsonl --sequences {} {}", quoted,
                       a.users(), flags);
  }
  return fmt::format("paddock {} -m {} {}", a.is_chat ? "chat" : "generate -f prompt.txt", quoted,
                     flags);
}

Json candidate_json(const Candidate& c) {
  const auto figure = [](double value, bool is_there) { return is_there ? Json(value) : Json(); };
  const Speed speed = c.speed.value_or(Speed{});
  const Quality quality = c.quality.value_or(Quality{});
  return {{"policy", c.options.kv.policy},
          {"change", c.change},
          {"flags", flags_of(c)},
          {"computed",
           {{"pool_bytes", c.pool_bytes}, {"total_bytes", c.total_bytes}, {"fits", c.fits}}},
          {"measured",
           {{"prefill_tokens_per_second", figure(speed.prefill_rate, c.speed.has_value())},
            {"decode_tokens_per_second", figure(speed.decode_rate, c.speed.has_value())},
            {"kl_mean", figure(quality.kl_mean, c.quality.has_value())},
            {"top1_agreement", figure(quality.top1_agreement, c.quality.has_value())},
            {"dropped", c.quality ? Json(quality.dropped) : Json()},
            {"facts_recalled", quality.recalled ? Json(*quality.recalled) : Json()}}},
          {"pareto", c.is_on_front}};
}

}  // namespace

std::string advice_text(const Advice& a) {
  std::string out = fmt::format("{} of {} positions; measured on the first {} of {} tokens of {}\n",
                                a.users() == 1 ? "one user" : fmt::format("{} users", a.users()),
                                a.room.options.context, a.sample.tokens.size(), a.all_tokens,
                                one_line(a.text_name));
  out += candidates_table(a) + batches_table(a);
  if (a.out_of_time) {
    out += InterruptGuard::interrupted()
               ? "\ninterrupted: what is not measured has no figures\n"
               : fmt::format(
                     "\nout of time after {:g} s: what is not measured has no figures; "
                     "--time gives it more\n",
                     a.seconds);
  }
  out += "\n";
  if (a.verdict.nothing_to_change) out += "nothing needs to change: ";
  out += a.verdict.why + "\n";
  if (a.verdict.best) out += command_of(a) + "\n";
  return out;
}

Json advice_json(const Advice& a) {
  Json out = {{"users", a.users()},
              {"context", a.room.options.context},
              {"memory_bytes", a.room.memory ? Json(*a.room.memory) : Json()},
              {"tokens", a.all_tokens},
              {"sample_tokens", a.sample.tokens.size()},
              {"prompt_tokens", a.sample.prompt_tokens()},
              {"facts", a.sample.facts.size()},
              {"full_recalls", a.full && a.full->recalled ? Json(*a.full->recalled) : Json()},
              {"candidates", Json::array()},
              {"batches", Json::array()},
              {"complete", !a.out_of_time},
              {"nothing_to_change", a.verdict.nothing_to_change},
              {"why", a.verdict.why}};
  for (const Candidate& c : a.candidates) out["candidates"].push_back(candidate_json(c));
  for (const ParallelRow& row : a.batches) {
    out["batches"].push_back({{"parallel", row.parallel},
                              {"prompt", a.batch_prompt},
                              {"prefill_tokens_per_second", row.prefill_rate},
                              {"decode_tokens_per_second", row.decode_rate},
                              {"gap_p50_ms", row.gap_p50},
                              {"gap_p99_ms", row.gap_p99},
                              {"kv_pages_peak", row.pages_peak},
                              {"preemptions", row.preemptions}});
  }
  out["best"] = a.verdict.best ? Json(*a.verdict.best) : Json();
  if (a.verdict.best) out["command"] = command_of(a);
  return out;
}

}  // namespace cli
