// What scored rules share: names, schedules, ranking.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "eviction/rules.h"

namespace paddock {

EvictionPolicy::~EvictionPolicy() = default;
TokenVisibility EvictionPolicy::visibility(int32_t) const { return {}; }
TrimSchedule EvictionPolicy::schedule(int32_t, int32_t) const { return {}; }
TrimSchedule EvictionPolicy::schedule(int32_t layer, int32_t n_layers, int32_t) const {
  return schedule(layer, n_layers);
}
double EvictionPolicy::need(const LayerView&) const { return 0; }
void EvictionPolicy::trim(const LayerView&, int64_t, std::vector<Victim>&) const {}

void rank_blocks(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims,
                 const std::function<double(int32_t block)>& score) {
  victims.clear();
  if (!score) fail(ErrorCode::kInvalidArgument, "rank_blocks() was given no score");
  for (size_t i = 0; i < view.blocks.size(); ++i) {
    if (view.blocks[i].is_protected) continue;
    const auto block = static_cast<int32_t>(i);
    const double value = score(block);
    if (!std::isfinite(value)) {
      fail(ErrorCode::kInvalidArgument,
           "the score of the block at position {} in layer {} is {}; it must be finite",
           view.blocks[i].first_position, view.layer, value);
    }
    victims.push_back({block, value});
  }
  std::sort(victims.begin(), victims.end(), [&](const Victim& a, const Victim& b) {
    if (a.score != b.score) return a.score < b.score;
    const int64_t used_a = view.blocks[a.block].last_used;
    const int64_t used_b = view.blocks[b.block].last_used;
    return used_a != used_b ? used_a < used_b : a.block > b.block;
  });
  int64_t freed = 0;
  size_t count = 0;
  for (; count < victims.size() && freed < n_tokens; ++count) {
    freed += view.blocks[victims[count].block].n_tokens;
  }
  victims.resize(std::min(victims.size(), count + 1));  // and the runner-up
}

std::string ScoredRule::name() const {
  std::string text = rule_name_;
  if (!is_elastic()) text += fmt::format(":{}", options_.budget);
  text += options_text();
  if (options_.compact) text += "@compact";
  return text;
}

std::string ScoredRule::options_text() const {
  std::string text;
  if (options_.every) text += fmt::format("@every:{}", *options_.every);
  if (options_.sinks) text += fmt::format("@sinks:{}", *options_.sinks);
  if (options_.recent) text += fmt::format("@recent:{}", *options_.recent);
  if (options_.seed) text += fmt::format("@seed:{}", *options_.seed);
  if (options_.least) text += fmt::format("@min:{}", *options_.least);
  return text;
}

TrimSchedule ScoredRule::schedule_for(int32_t budget) const {
  TrimSchedule schedule;
  schedule.budget = budget;
  schedule.every = options_.every.value_or(schedule.every);
  schedule.keep_first = options_.sinks.value_or(0);
  schedule.keep_newest = options_.recent.value_or(0);
  return schedule;
}

void ScoredRule::trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const {
  rank_blocks(view, n_tokens, victims, [&](int32_t block) { return score(view, block); });
}

}  // namespace paddock
