#include "kv_notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "advice.h"

namespace cli {
namespace {

bool by_rule(paddock::RemovalReason reason) {
  return reason == paddock::RemovalReason::kWindow || reason == paddock::RemovalReason::kPolicyTrim;
}

int64_t pages_by_rule(const paddock::KvStats& stats) {
  const auto of = [&](paddock::RemovalReason reason) {
    return stats.total.pages_removed[static_cast<size_t>(reason)];
  };
  return of(paddock::RemovalReason::kWindow) + of(paddock::RemovalReason::kPolicyTrim);
}

/// Ranges of positions [first, end), joined where they meet.
class Ranges {
 public:
  void add(int64_t first, int64_t end) {
    auto at = ends_.upper_bound(first);
    if (at != ends_.begin() && std::prev(at)->second >= first) first = (--at)->first;
    while (at != ends_.end() && at->first <= end) {
      end = std::max(end, at->second);
      at = ends_.erase(at);
    }
    ends_[first] = end;
  }
  const std::map<int64_t, int64_t>& all() const { return ends_; }
  /// "4-63, 80-95", at most three of them.
  std::string text() const {
    std::string out;
    int shown = 0;
    for (const auto& [first, end] : ends_) {
      if (shown == 3) return out + fmt::format(" and {} more runs", ends_.size() - 3);
      out += fmt::format("{}{}-{}", shown++ == 0 ? "" : ", ", first, end - 1);
    }
    return out;
  }

 private:
  std::map<int64_t, int64_t> ends_;  // by first
};

std::string turns_text(const Ranges& ranges, const std::function<int64_t(int64_t)>& turn_of) {
  if (!turn_of || ranges.all().empty()) return "";
  const int64_t first = turn_of(ranges.all().begin()->first);
  const int64_t last = turn_of(std::prev(ranges.all().end())->second - 1);
  return first == last ? fmt::format(" of turn {}", first)
                       : fmt::format(" of turns {} to {}", first, last);
}

}  // namespace

std::string pages_text(const paddock::KvStats& stats) {
  const double percent = 100.0 * static_cast<double>(stats.total.pages_active) /
                         static_cast<double>(std::max<int64_t>(1, stats.pool_pages));
  return fmt::format("{} of {} pages ({:.0f}%)", stats.total.pages_active, stats.pool_pages,
                     percent);
}

KvNotes::KvNotes(const paddock::Engine& engine, std::string policy)
    : engine_(engine), policy_(std::move(policy)) {}

std::string KvNotes::news(int64_t positions, const std::function<int64_t(int64_t)>& turn_of) {
  const paddock::KvStats stats = engine_.kv_stats();
  const int64_t pages = pages_by_rule(stats) - pages_;
  const uint64_t from = next_;
  pages_ += pages;
  next_ = stats.events;
  if (pages == 0) return "";
  Ranges ranges;
  std::set<int32_t> layers;
  for (const paddock::KvEvent& event : engine_.kv_events(from)) {
    if (event.number >= stats.events || !by_rule(event.reason)) continue;
    ranges.add(event.first_position, event.first_position + event.n_tokens);
    layers.insert(event.layer);
  }
  const std::string rule = engine_.options().kv.policy;
  std::string text = fmt::format(
      "{} let {} pages go: positions {}{}{} in {} of {} layers; {} are held", rule, pages,
      stats.events_lost > from ? "up to " : "", ranges.text(), turns_text(ranges, turn_of),
      layers.size(), stats.layers.size(), pages_text(stats));
  if (remedy_for_ == rule) return text;
  remedy_for_ = rule;
  return text + remedy(positions);
}

std::string KvNotes::remedy(int64_t positions) const {
  try {
    engine_.check_kv_policy("full", positions);
    return fmt::format("; {} full keeps all {} positions", policy_, positions);
  } catch (const paddock::Error& e) {
    for (const paddock::Proposal& proposal : e.proposals()) {
      if (proposal.policy || proposal.batch_size) continue;
      paddock::Proposal whole = proposal;
      whole.policy = "full";
      return fmt::format("; to keep all {} positions {}", positions,
                         paddock::to_text({&whole, 1}, option_names()));
    }
  }
  return "";
}

}  // namespace cli
