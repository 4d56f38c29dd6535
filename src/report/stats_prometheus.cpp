// The snapshot in Prometheus' text exposition format (version 0.0.4,
// https://prometheus.io/docs/instrumenting/exposition_formats/).
#include <fmt/format.h>

#include "core/utf8.h"
#include "paddock/stats.h"

namespace paddock {
namespace {

class Printer {
 public:
  void begin(const char* name, const char* type, const char* help) {
    name_ = name;
    text_ +=
        fmt::format("# HELP paddock_kv_{} {}\n# TYPE paddock_kv_{} {}\n", name, help, name, type);
  }
  void value(const std::string& labels, double x) {
    text_ += fmt::format("paddock_kv_{}{}{}{} {}\n", name_, labels.empty() ? "" : "{", labels,
                         labels.empty() ? "" : "}", x);
  }
  void value(const std::string& labels, int64_t x) {
    text_ += fmt::format("paddock_kv_{}{}{}{} {}\n", name_, labels.empty() ? "" : "{", labels,
                         labels.empty() ? "" : "}", x);
  }
  /// One sample per layer.
  template <typename Get>
  void layers(const char* name, const char* type, const char* help, const KvStats& stats,
              const Get& get) {
    begin(name, type, help);
    for (const KvLayerStats& layer : stats.layers) {
      value(fmt::format("layer=\"{}\"", layer.layer), get(layer));
    }
  }
  /// One sample without labels.
  template <typename Value>
  void single(const char* name, const char* type, const char* help, Value x) {
    begin(name, type, help);
    value("", x);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
  const char* name_ = "";
};

/// Label values are UTF-8 and escape backslash, quote and newline. What is no UTF-8 becomes U+FFFD.
std::string escaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Char c = next_utf8(text);
    if (c.state != Utf8Char::State::kValid) {
      append_utf8(out, 0xFFFD);
    } else if (c.code == '\n') {
      out += "\\n";
    } else {
      if (c.code == '\\' || c.code == '"') out += '\\';
      out += text.substr(0, c.length);
    }
    text.remove_prefix(c.length);
  }
  return out;
}

void print_pool(Printer& p, const KvStats& s) {
  p.begin("layer_info", "gauge", "The rule that each layer is under.");
  for (const KvLayerStats& layer : s.layers) {
    p.value(fmt::format("layer=\"{}\",policy=\"{}\"", layer.layer, escaped(layer.policy)),
            int64_t{1});
  }
  p.begin("pages", "gauge", "Pages of the pool by layer and state.");
  for (const KvLayerStats& layer : s.layers) {
    p.value(fmt::format("layer=\"{}\",state=\"active\"", layer.layer), layer.pages_active);
    p.value(fmt::format("layer=\"{}\",state=\"cached\"", layer.layer), layer.pages_cached);
  }
  p.single("pages_free", "gauge", "Pages that no layer holds.", s.pages_free);
  p.single("cache_usage_perc", "gauge", "Active pages per page of the pool; 1: all of it.",
           s.pool_pages == 0
               ? 0.0
               : static_cast<double>(s.total.pages_active) / static_cast<double>(s.pool_pages));
  p.single("pages_per_block", "gauge", "Pages that a sequence's next block takes.",
           s.pages_per_block);
  p.single("reservations_refused_total", "counter",
           "Times that too few pages were free for what a step needed.", s.reservations_refused);
  p.single("pool_pages", "gauge", "Pages of the pool that may be in use.", s.pool_pages);
  p.single("pool_bytes", "gauge", "Bytes of these.", s.pool_bytes);
  p.single("pool_max_pages", "gauge", "Pages that are reserved.", s.pool_max_pages);
  p.single("pool_pages_peak", "gauge", "Most pages active at once, of all layers together.",
           s.total.pages_peak);
}

void print_layers(Printer& p, const KvStats& s) {
  // All fields by name: the compiler asks here for a new one, here or in print_pool().
  [[maybe_unused]] const auto& [number, policy, pages_active, pages_cached, pages_pinned,
                                pages_peak, tokens_resident, tokens_peak, budget, bytes,
                                pages_allocated, pages_removed, pages_retained, pages_merged,
                                tokens_read, trim_decisions, kv_overflows, attention_seconds] =
      s.total;
  p.layers("pages_pinned", "gauge", "Active pages that the rule may not name.", s,
           [](const KvLayerStats& l) { return l.pages_pinned; });
  p.layers("pages_peak", "gauge", "Most pages active at once.", s,
           [](const KvLayerStats& l) { return l.pages_peak; });
  p.layers("tokens_resident", "gauge", "Positions whose keys and values are held.", s,
           [](const KvLayerStats& l) { return l.tokens_resident; });
  p.layers("tokens_peak", "gauge", "Most positions that one query of a live sequence has met.", s,
           [](const KvLayerStats& l) { return l.tokens_peak; });
  p.layers("budget", "gauge", "Least budget in force, in positions; 0: none.", s,
           [](const KvLayerStats& l) { return l.budget; });
  p.layers("bytes", "gauge", "Bytes of active pages.", s,
           [](const KvLayerStats& l) { return l.bytes; });
  p.layers("pages_allocated_total", "counter", "Pages taken.", s,
           [](const KvLayerStats& l) { return l.pages_allocated; });
  p.begin("pages_removed_total", "counter", "Pages that left, by layer and reason.");
  for (const KvLayerStats& layer : s.layers) {
    for (int32_t r = 0; r < kRemovalReasons; ++r) {
      p.value(fmt::format("layer=\"{}\",reason=\"{}\"", layer.layer,
                          removal_reason_name(static_cast<RemovalReason>(r))),
              layer.pages_removed[r]);
    }
  }
  p.layers("pages_retained_total", "counter", "Of them, pages that stay for others.", s,
           [](const KvLayerStats& l) { return l.pages_retained; });
  p.layers("pages_merged_total", "counter", "Pages freed because another block was the same.", s,
           [](const KvLayerStats& l) { return l.pages_merged; });
  p.layers("tokens_read_total", "counter", "Query and key pairs that attention met.", s,
           [](const KvLayerStats& l) { return l.tokens_read; });
  p.layers("trim_decisions_total", "counter", "Times a rule that trims was asked.", s,
           [](const KvLayerStats& l) { return l.trim_decisions; });
  p.layers("overflows_total", "counter", "Keys and values that the KV type holds as infinity.", s,
           [](const KvLayerStats& l) { return l.kv_overflows; });
  p.layers("attention_seconds_total", "counter", "Time spent in attention.", s,
           [](const KvLayerStats& l) { return l.attention_seconds; });
}

void print_totals(Printer& p, const KvStats& s) {
  p.single("steps_total", "counter", "Forward passes.", s.steps);
  p.single("tokens_written_total", "counter", "Tokens whose keys and values were stored.",
           s.tokens_written);
  p.single("sequences", "gauge", "Live sequences.", int64_t{s.sequences});
  p.single("policy_seconds_total", "counter", "Time spent in trim() and need().", s.policy_seconds);
  p.single("policy_violations_total", "counter", "Answers of rules that were overruled.",
           s.policy_violations);
  p.single("policy_shortfalls_total", "counter", "Answers of rules that named too few blocks.",
           s.policy_shortfalls);
  p.single("policy_slow_total", "counter", "Calls of trim() that took longer than a millisecond.",
           s.policy_slow);
  p.single("hook_failures_total", "counter", "Times that a callback of the host threw.",
           s.hook_failures);
  p.single("prefix_lookups_total", "counter", "Blocks looked for among those kept for reuse.",
           s.prefix_lookups);
  p.single("prefix_hits_total", "counter", "Of them found.", s.prefix_hits);
  p.single("reclaim_regrets_total", "counter",
           "Blocks looked for in vain that had been reclaimed before.", s.reclaim_regrets);
  if (!s.shadows.empty()) {
    p.begin("shadow_hits_total", "counter", "Blocks that a pool of another size would have found.");
    for (const KvShadow& shadow : s.shadows) {
      p.value(fmt::format("times=\"{:g}\"", shadow.times), shadow.hits);
    }
  }
  p.single("budget_falls_total", "counter", "Falls of elastic rules' budgets.", s.budget_falls);
  p.single("budget_lifts_total", "counter", "Budgets that a session's next turn took away.",
           s.budget_lifts);
  p.single("scored_from", "gauge", "Position from which on queries count in scores.",
           s.scored_from);
  p.single("events_total", "counter", "Removals logged.", static_cast<int64_t>(s.events));
  p.single("events_lost_total", "counter", "Removals that the ring has overwritten.",
           static_cast<int64_t>(s.events_lost));
}

void print_memory(Printer& p, const KvStats& s) {
  p.single("process_resident_bytes", "gauge", "Memory of the process as the system reports it.",
           static_cast<int64_t>(s.memory.resident_bytes));
  p.begin("device_bytes", "gauge", "Memory of the device: by this engine, and by its driver.");
  const std::pair<const char*, uint64_t> kinds[] = {{"reserved", s.device.reserved_bytes},
                                                    {"process", s.device.process_bytes},
                                                    {"free", s.device.free_bytes},
                                                    {"total", s.device.total_bytes}};
  for (const auto& [kind, bytes] : kinds) {
    p.value(fmt::format("device=\"{}\",kind=\"{}\"", escaped(s.device.device), kind),
            static_cast<int64_t>(bytes));
  }
}

}  // namespace

std::string to_prometheus(const KvStats& s) {
  Printer p;
  print_pool(p, s);
  print_layers(p, s);
  print_totals(p, s);
  print_memory(p, s);
  return p.take();
}

}  // namespace paddock
