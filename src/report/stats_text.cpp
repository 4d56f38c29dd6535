// Printers of the cache's statistics, and names of its enumerations.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/enum_names.h"
#include "core/fail.h"
#include "paddock/kv_cache.h"
#include "paddock/stats.h"

namespace paddock {
namespace {

constexpr const char* name_of(MissReason reason) noexcept {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kFirstSeen:
      return "first_seen";
    case MissReason::kDiffers:
      return "differs";
    case MissReason::kReclaimed:
      return "reclaimed";
    case MissReason::kTrimmed:
      return "trimmed";
    case MissReason::kSettings:
      return "settings";
    case MissReason::kNotShared:
      return "not_shared";
  }
  return nullptr;
}
static_assert(names_exactly<MissReason>(kMissReasons, name_of));

constexpr const char* name_of(RemovalReason reason) noexcept {
  switch (reason) {
    case RemovalReason::kCapacity:
      return "capacity";
    case RemovalReason::kWindow:
      return "window";
    case RemovalReason::kPolicyTrim:
      return "policy_trim";
    case RemovalReason::kSequenceEnd:
      return "sequence_end";
    case RemovalReason::kPreempt:
      return "preempt";
    case RemovalReason::kUser:
      return "user";
  }
  return nullptr;
}
static_assert(names_exactly<RemovalReason>(kRemovalReasons, name_of));

using Json = nlohmann::ordered_json;

constexpr double kMiB = 1024.0 * 1024.0;

Json layer_json(const KvLayerStats& layer) {
  // All fields by name: the compiler asks here for a new one.
  const auto& [number, policy, pages_active, pages_cached, pages_pinned, pages_peak,
               tokens_resident, tokens_peak, budget, bytes, pages_allocated, pages_removed,
               pages_retained, pages_merged, tokens_read, trim_decisions, kv_overflows,
               attention_seconds] = layer;
  Json removed = Json::object();
  for (int32_t r = 0; r < kRemovalReasons; ++r) {
    removed[removal_reason_name(static_cast<RemovalReason>(r))] = pages_removed[r];
  }
  Json out = Json::object();
  if (number >= 0) {
    out["layer"] = number;
    out["policy"] = policy;
  }
  out["pages_active"] = pages_active;
  out["pages_cached"] = pages_cached;
  out["pages_pinned"] = pages_pinned;
  out["pages_peak"] = pages_peak;
  out["tokens_resident"] = tokens_resident;
  out["tokens_peak"] = tokens_peak;
  if (number >= 0) out["budget"] = budget;
  out["bytes"] = bytes;
  out["pages_allocated"] = pages_allocated;
  out["pages_removed"] = std::move(removed);
  out["pages_retained"] = pages_retained;
  out["pages_merged"] = pages_merged;
  out["tokens_read"] = tokens_read;
  out["trim_decisions"] = trim_decisions;
  out["kv_overflows"] = kv_overflows;
  out["attention_seconds"] = attention_seconds;
  return out;
}

/// What left, as "reason:pages" for every reason that occurred.
std::string removals(const KvLayerStats& s) {
  std::string text;
  for (int32_t r = 0; r < kRemovalReasons; ++r) {
    if (s.pages_removed[r] == 0) continue;
    text += fmt::format("{}{}:{}", text.empty() ? "" : " ",
                        removal_reason_name(static_cast<RemovalReason>(r)), s.pages_removed[r]);
  }
  return text.empty() ? "-" : text;
}

/// A policy's name or message may hold anything, a row of the table is one line.
std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7F'; }, '?');
  return text;
}

std::string row(const std::string& name, const KvLayerStats& s, const std::string& policy) {
  return fmt::format(
      "{:>5}  {:<18} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>9.2f} {:>9} {:>12} {:>9.1f}  {}\n",
      name, one_line(policy), s.pages_active, s.pages_peak, s.pages_cached, s.pages_pinned,
      s.tokens_resident, s.budget == 0 ? "-" : std::to_string(s.budget), s.bytes / kMiB,
      s.pages_allocated, s.tokens_read, s.attention_seconds * 1e3, removals(s));
}

/// A policy of the host's own may have any bytes in its name and messages.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json shadows_json(const std::vector<KvShadow>& shadows) {
  Json out = Json::array();
  for (const KvShadow& s : shadows) {
    out.push_back({{"times", s.times}, {"blocks", s.blocks}, {"hits", s.hits}});
  }
  return out;
}

/// What was found again, and what more memory would have found, or less.
std::string found_text(const KvStats& stats) {
  if (stats.prefix_lookups == 0 && stats.shadows.empty()) return {};
  std::string out = fmt::format("blocks found again: {} of {} looked for", stats.prefix_hits,
                                stats.prefix_lookups);
  for (const KvShadow& s : stats.shadows) {
    out += fmt::format("{} {} with {:g} times the pool", &s == stats.shadows.data() ? ";" : ",",
                       s.hits, s.times);
  }
  return out + "\n";
}

}  // namespace

const char* removal_reason_name(RemovalReason reason) noexcept {
  return name_or_unknown(name_of(reason));
}

std::string to_json(const KvStats& stats) {
  Json out = {{"block_size", stats.block_size},
              {"type", stats.type},
              {"page_bytes", stats.page_bytes},
              {"pool_pages", stats.pool_pages},
              {"pool_bytes", stats.pool_bytes},
              {"pool_max_pages", stats.pool_max_pages},
              {"pages_free", stats.pages_free},
              {"pages_per_block", stats.pages_per_block},
              {"reservations_refused", stats.reservations_refused},
              {"steps", stats.steps},
              {"tokens_written", stats.tokens_written},
              {"sequences", stats.sequences}};
  out["policy_seconds"] = stats.policy_seconds;
  out["policy_violations"] = stats.policy_violations;
  out["policy_shortfalls"] = stats.policy_shortfalls;
  out["policy_slow"] = stats.policy_slow;
  out["hook_failures"] = stats.hook_failures;
  if (!stats.last_violation.empty()) out["last_violation"] = stats.last_violation;
  out["prefix_lookups"] = stats.prefix_lookups;
  out["prefix_hits"] = stats.prefix_hits;
  out["reclaim_regrets"] = stats.reclaim_regrets;
  if (!stats.shadows.empty()) out["shadows"] = shadows_json(stats.shadows);
  out["budget_falls"] = stats.budget_falls;
  out["budget_lifts"] = stats.budget_lifts;
  out["scored_from"] = stats.scored_from;
  out["events"] = stats.events;
  out["events_lost"] = stats.events_lost;
  out["process_resident_bytes"] = stats.memory.resident_bytes;
  out["process_available_bytes"] = stats.memory.available_bytes;
  out["device"] = {{"name", stats.device.device},
                   {"reserved_bytes", stats.device.reserved_bytes},
                   {"process_bytes", stats.device.process_bytes},
                   {"free_bytes", stats.device.free_bytes},
                   {"total_bytes", stats.device.total_bytes}};
  out["total"] = layer_json(stats.total);
  out["layers"] = Json::array();
  for (const KvLayerStats& layer : stats.layers) out["layers"].push_back(layer_json(layer));
  return dump(out);
}

const char* miss_reason_name(MissReason reason) noexcept {
  return name_or_unknown(name_of(reason));
}

std::string to_json(const PrefixMiss& miss) {
  Json out = {{"reason", miss_reason_name(miss.reason)}};
  if (miss.again) out["again"] = true;
  if (miss.position >= 0) out["position"] = miss.position;
  if (miss.differs_at >= 0) out["differs_at"] = miss.differs_at;
  if (miss.step >= 0) out["step"] = miss.step;
  if (miss.request > 0) out["request"] = miss.request;
  return out.dump();
}

std::string to_json(const KvEvent& event) {
  // All fields by name: the compiler asks here for a new one.
  const auto& [number, step, reason, layer, sequence, first_position, n_tokens, length, age_steps,
               idle_steps, overruled, score, runner_up_score, runner_up_position, rank,
               left_together, sufficient_budget, policy] = event;
  Json out = {{"number", number},
              {"step", step},
              {"reason", removal_reason_name(reason)},
              {"layer", layer},
              {"policy", policy},
              {"sequence", sequence},
              {"first_position", first_position},
              {"n_tokens", n_tokens},
              {"length", length},
              {"age_steps", age_steps}};
  if (idle_steps >= 0) out["idle_steps"] = idle_steps;
  if (is_by_score(reason)) {
    out["overruled"] = overruled;
    if (!overruled) out["score"] = score;
    if (runner_up_position >= 0) {
      out["runner_up_position"] = runner_up_position;
      out["runner_up_score"] = runner_up_score;
    }
    out["rank"] = rank;
    out["left_together"] = left_together;
    out["sufficient_budget"] = sufficient_budget;
  }
  return dump(out);
}

std::string to_json(const KvBudgetChange& change) {
  const auto budget = [](int32_t positions) {
    return positions == kUnlimited ? Json(nullptr) : Json(positions);
  };
  const Json out = {{"event", "budget"},
                    {"number", change.number},
                    {"step", change.step},
                    {"sequence", change.sequence},
                    {"length", change.length},
                    {"before", budget(change.before)},
                    {"after", budget(change.after)},
                    {"request", change.request},
                    {"scored_from", change.scored_from},
                    {"first_event", change.first_event},
                    {"pages", change.pages},
                    {"layer_pages", change.layer_pages}};
  return out.dump();
}

std::string to_json(const KvPreemption& p) {
  const Json out = {{"event", "preemption"},       {"number", p.number}, {"step", p.step},
                    {"sequence", p.sequence},      {"parked", p.parked}, {"session", p.session},
                    {"request", p.request},        {"tokens", p.tokens}, {"pages", p.pages},
                    {"first_event", p.first_event}};
  return out.dump();
}

std::string to_table(const KvStats& stats) {
  std::string out = fmt::format(
      "KV cache: {} pages of {} bytes ({:.1f} MiB, {} positions of one layer each, {}), {} free; "
      "the process holds {:.1f} MiB\n",
      stats.pool_pages, stats.page_bytes, stats.pool_bytes / kMiB, stats.block_size, stats.type,
      stats.pages_free, stats.memory.resident_bytes / kMiB);
  if (stats.pool_max_pages > stats.pool_pages) {
    out += fmt::format("{} pages are reserved; the budget admits {} of them\n",
                       stats.pool_max_pages, stats.pool_pages);
  }
  if (stats.device.total_bytes > 0) {
    out += fmt::format(
        "{}: {:.1f} MiB reserved by this engine, {:.1f} of {:.1f} MiB free{}\n",
        one_line(stats.device.device), stats.device.reserved_bytes / kMiB,
        stats.device.free_bytes / kMiB, stats.device.total_bytes / kMiB,
        stats.device.process_bytes == 0
            ? ""
            : fmt::format(", {:.1f} MiB held by this process", stats.device.process_bytes / kMiB));
  }
  out += fmt::format(
      "{:>5}  {:<18} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>9} {:>9} {:>12} {:>9}  {}\n", "layer",
      "policy", "pages", "peak", "cached", "pinned", "tokens", "budget", "MiB", "allocated",
      "keys read", "attn ms", "pages removed");
  for (const KvLayerStats& layer : stats.layers) {
    out += row(fmt::format("{}", layer.layer), layer, layer.policy);
  }
  out += row("total", stats.total, "");
  if (stats.total.trim_decisions > 0) {
    out += fmt::format(
        "{} trim decisions took {:.2f} ms; {} answers overruled, {} filled up, {} slow\n",
        stats.total.trim_decisions, stats.policy_seconds * 1e3, stats.policy_violations,
        stats.policy_shortfalls, stats.policy_slow);
  }
  if (stats.budget_falls > 0) {
    out += fmt::format("budgets fell {} times for want of pages, and were lifted {} times\n",
                       stats.budget_falls, stats.budget_lifts);
  }
  if (stats.scored_from > 0) {
    out += fmt::format("what was found in the cache brought no scores: they count from {} on\n",
                       stats.scored_from);
  }
  out += found_text(stats);
  if (stats.reservations_refused > 0) {
    out += fmt::format("{} times too few pages were free; a block takes {}, one in every layer\n",
                       stats.reservations_refused, stats.pages_per_block);
  }
  for (const KvLayerStats& layer : stats.layers) {
    if (layer.kv_overflows == 0) continue;
    out += fmt::format("layer {}: {} keys and values did not fit {} and are infinite\n",
                       layer.layer, layer.kv_overflows, stats.type);
  }
  if (!stats.last_violation.empty()) out += one_line(stats.last_violation) + "\n";
  return out;
}

}  // namespace paddock
