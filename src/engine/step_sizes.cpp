#include "engine/step_sizes.h"

#include <algorithm>

namespace paddock {
namespace {

/// Whether two layers' tables use equal rotations, whatever rules they go by.
bool turn_alike(std::span<const StepRules> all, int32_t layer, int32_t other) {
  return std::all_of(all.begin(), all.end(), [&](const StepRules& rules) {
    const LayerRule& a = rules.policies->layer(layer);
    const LayerRule& b = rules.policies->layer(other);
    return !a.moves_queries() && !b.moves_queries() && same_rotations(a, b);
  });
}

/// The group whose angles the layer shares, which may be a new one.
int32_t group_of(std::span<const StepRules> all, int32_t layer, StepSizes& sizes) {
  for (size_t i = 0; i < sizes.groups.size(); ++i) {
    if (turn_alike(all, layer, sizes.groups[i].layer)) return static_cast<int32_t>(i);
  }
  sizes.groups.push_back({layer, 0});
  return static_cast<int32_t>(sizes.groups.size()) - 1;
}

// A step may mix sequences under all rules. Under some a table's rotations are its own: the rows of
// each sequence add up. Under others all tables have the same few: each token has a row for each of
// them, and at worst all tokens are under the rules that have most.
int64_t angle_rows(const CacheConfig& config, std::span<const StepRules> all, int32_t layer,
                   int32_t max_tokens) {
  int64_t by_sequence = 0, per_token = 0;
  for (const StepRules& rules : all) {
    const LayerRule& rule = rules.policies->layer(layer);
    const int64_t entries = rules.max_entries[layer];
    if (rule.is_elastic && rule.moves_queries()) {
      // A table has one rotation until its budget falls, and steps of it are then so small that it
      // has no more rows than it may have entries.
      by_sequence += entries * config.max_sequences;
      per_token = std::max<int64_t>(per_token, 1);
    } else if (rule.moves_queries()) {
      // Steps end where the rule decides, so a sequence brings few tokens at once.
      const int64_t max = rule.schedule.every > 0 ? rule.schedule.every : config.max_chunk;
      by_sequence += entries * std::min<int64_t>(max_tokens, max * config.max_sequences);
    } else {
      per_token = std::max(per_token, static_cast<int64_t>(rule.rotations.size()));
    }
  }
  return by_sequence + per_token * max_tokens;
}

}  // namespace

int64_t StepSizes::max_measured_entries() const {
  return measured_entries.empty()
             ? 0
             : *std::max_element(measured_entries.begin(), measured_entries.end());
}

StepSizes step_sizes(const CacheConfig& config, std::span<const StepRules> all,
                     int32_t max_tokens) {
  StepSizes sizes;
  sizes.max_entries.resize(config.n_layers);
  sizes.measured_entries.resize(config.n_layers);
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    sizes.layer_group.push_back(group_of(all, layer, sizes));
    for (const StepRules& rules : all) {
      const int64_t entries = rules.max_entries[layer];
      sizes.max_entries[layer] = std::max(sizes.max_entries[layer], entries);
      if (!rules.policies->layer(layer).needs.attention) continue;
      sizes.measured_entries[layer] = std::max(sizes.measured_entries[layer], entries);
    }
  }
  int64_t rows = max_tokens;
  for (StepSizes::RotationGroup& group : sizes.groups) {
    group.rows = angle_rows(config, all, group.layer, max_tokens);
    rows += group.rows;
  }
  sizes.max_angle_rows = static_cast<int32_t>(rows);
  return sizes;
}

}  // namespace paddock
