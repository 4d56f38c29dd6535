#include "kv_notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "advice.h"

namespace cli {
namespace {

int64_t pages_by_rule(const paddock::KvStats& stats) {
  int64_t pages = 0;
  for (int32_t reason = 0; reason < paddock::kRemovalReasons; ++reason) {
    if (!paddock::is_by_rule(static_cast<paddock::RemovalReason>(reason))) continue;
    pages += stats.total.pages_removed[static_cast<size_t>(reason)];
  }
  return pages;
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
      if (shown == 3) return out + fmt::format(" and {} more", ends_.size() - 3);
      out += fmt::format("{}{}-{}", shown++ == 0 ? "" : ", ", first, end - 1);
    }
    return out;
  }

 private:
  std::map<int64_t, int64_t> ends_;  // by first
};

/// Where every layer keeps all that there is room for: lengths between which it needs more of it
/// are multiples of this; 0: not every one does.
int64_t elastic_interval(const paddock::KvStats& stats) {
  int64_t interval = 1;
  const auto n_layers = static_cast<int32_t>(stats.layers.size());
  for (const paddock::KvLayerStats& layer : stats.layers) {
    if (layer.policy == "full") continue;
    try {
      const auto policy = paddock::make_policy(layer.policy);
      if (!policy->is_elastic()) return 0;
      const int64_t every = policy->schedule(layer.layer, n_layers, paddock::kUnlimited).every;
      interval = std::lcm(interval, every);
    } catch (const paddock::Error&) {
      return 0;  // a host's own
    }
  }
  return interval;
}

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

std::string KvNotes::budgets() {
  std::string text;
  int64_t falls = 0;
  int32_t least = 0;
  const paddock::KvBudgetChange* first = nullptr;
  const std::vector<paddock::KvBudgetChange> changes = engine_.kv_budget_changes(next_change_);
  for (const paddock::KvBudgetChange& change : changes) {
    next_change_ = change.number + 1;
    if (change.after == paddock::kUnlimited) {
      text += fmt::format("; its budget of {} was lifted at {} positions", change.before,
                          change.length);
      continue;
    }
    if (first == nullptr) first = &change;
    least = change.after;
    ++falls;
  }
  if (first == nullptr) return text;
  // One sequence has the pool to itself: the need was its own.
  text += fmt::format(
      "; it began to lose {}at {} positions, for itself: its budget fell {}to {} "
      "positions per layer{}",
      has_lost_ ? "more " : "", first->length,
      first->before == paddock::kUnlimited ? "" : fmt::format("from {} ", first->before), least,
      falls == 1 ? "" : fmt::format(" in {} falls", falls));
  has_lost_ = true;
  return text;
}

std::string KvNotes::news(int64_t positions, const std::function<int64_t(int64_t)>& turn_of) {
  const paddock::KvStats stats = engine_.kv_stats();
  const int64_t pages = pages_by_rule(stats) - pages_;
  const uint64_t from = next_;
  pages_ += pages;
  next_ = stats.events;
  const std::string budgets = this->budgets();
  if (pages == 0) {
    return budgets.empty() ? "" : engine_.options().kv.policy + " let nothing go" + budgets;
  }
  Ranges ranges;
  std::set<int32_t> layers;
  for (const paddock::KvEvent& event : engine_.kv_events(from)) {
    if (event.number >= stats.events || !paddock::is_by_rule(event.reason)) continue;
    ranges.add(event.first_position, event.first_position + event.n_tokens);
    layers.insert(event.layer);
  }
  const std::string rule = engine_.options().kv.policy;
  std::string text = fmt::format(
      "{} let {} pages go: positions {}{}{} in {} of {} layers; {} are held", rule, pages,
      stats.events_lost > from ? "up to " : "", ranges.text(), turns_text(ranges, turn_of),
      layers.size(), stats.layers.size(), pages_text(stats));
  text += budgets;
  if (remedy_for_ == rule) return text;
  remedy_for_ = rule;
  return text + remedy(positions);
}

std::string KvNotes::remedy(int64_t positions) const {
  // A rule that gives up nothing while pages last needs no other one.
  const int64_t interval = elastic_interval(engine_.kv_stats());
  const bool keeps_all = interval > 0;
  const int64_t context = engine_.options().context;
  const int64_t wanted =
      keeps_all ? std::min(context, (positions + interval - 1) / interval * interval) : positions;
  try {
    engine_.check_kv_policy("full", wanted);
    if (keeps_all) return "";  // others, or the context, asked for it
    return fmt::format("; {} full keeps all {} positions", policy_, positions);
  } catch (const paddock::Error& e) {
    for (const paddock::Proposal& proposal : e.proposals()) {
      if (proposal.policy || proposal.batch_size) continue;
      paddock::Proposal whole = proposal;
      if (!keeps_all) whole.policy = "full";
      return fmt::format("; to keep all {} positions {}", positions,
                         paddock::to_text({&whole, 1}, option_names()));
    }
  }
  return "";
}

}  // namespace cli
