#include "engine/step_planner.h"

#include <algorithm>
#include <bit>

namespace paddock {
namespace {

bool equal(std::span<const Rotation> a, std::span<const Rotation> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Rotation& x, const Rotation& y) {
                      return x.query_shift == y.query_shift && x.query_cap == y.query_cap;
                    });
}

}  // namespace

StepPlanner::StepPlanner(CacheManager& cache, int32_t max_tokens)
    : cache_(cache), n_layers_(cache.config().n_layers) {
  const CacheConfig& config = cache.config();
  const auto n_sequences = static_cast<size_t>(config.max_sequences);
  destinations_.resize(n_layers_);
  views_.resize(n_layers_);
  uses_.resize(n_layers_);
  key_norms_.resize(n_layers_);
  layers_.resize(n_layers_);
  for (int32_t layer = 0; layer < n_layers_; ++layer) {
    const PolicyNeeds needs = cache.needs(layer);
    layer_group_.push_back(group_of(layer));
    destinations_[layer].reserve(max_tokens);
    views_[layer].reserve(n_sequences);
    measures_ |= needs.attention || needs.key_norms;
    if (needs.key_norms) key_norms_[layer].resize(max_tokens);
    int64_t measured = 0;
    for (RulesId rules = 0; rules < cache.n_rules(); ++rules) {
      if (!cache.policies(rules).layer(layer).needs.attention) continue;
      measured = std::max(measured, cache.max_entries(rules, layer));
    }
    uses_[layer].resize(n_sequences * measured);
    max_measured_entries_ = std::max(max_measured_entries_, measured);
  }
  int64_t rows = 0;
  for (RotationGroup& group : groups_) {
    const int64_t own = most_rows(group.layer, max_tokens);
    group.rows.reserve(own);
    group.offsets.reserve(n_sequences);
    rows += own;
  }
  max_angle_rows_ = static_cast<int32_t>(max_tokens + rows);
  parts_.reserve(n_sequences);
  tokens_.reserve(max_tokens);
  angle_positions_.reserve(max_angle_rows_);
  angle_table_.resize(std::bit_ceil(2 * static_cast<size_t>(max_angle_rows_)));
}

// A step may bring tokens of sequences under all rules: rows that come by the sequence add up, of
// those that come by the token each token has at most the most.
int64_t StepPlanner::most_rows(int32_t layer, int32_t max_tokens) const {
  const CacheConfig& config = cache_.config();
  int64_t by_sequence = 0, per_token = 0;
  for (RulesId rules = 0; rules < cache_.n_rules(); ++rules) {
    const LayerRule& rule = cache_.policies(rules).layer(layer);
    const int64_t entries = cache_.max_entries(rules, layer);
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

bool StepPlanner::turn_alike(int32_t layer, int32_t other) const {
  for (RulesId rules = 0; rules < cache_.n_rules(); ++rules) {
    const LayerRule& a = cache_.policies(rules).layer(layer);
    const LayerRule& b = cache_.policies(rules).layer(other);
    if (a.moves_queries() || b.moves_queries() || !equal(a.rotations, b.rotations)) return false;
  }
  return true;
}

int32_t StepPlanner::group_of(int32_t layer) {
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (turn_alike(layer, groups_[i].layer)) return static_cast<int32_t>(i);
  }
  groups_.push_back({layer, {}, {}});
  return static_cast<int32_t>(groups_.size()) - 1;
}

int64_t StepPlanner::max_entries_of(int32_t layer) const {
  int64_t most = 0;
  for (RulesId rules = 0; rules < cache_.n_rules(); ++rules) {
    most = std::max(most, cache_.max_entries(rules, layer));
  }
  return most;
}

std::vector<int64_t> StepPlanner::max_entries() const {
  std::vector<int64_t> entries(n_layers_);
  for (int32_t layer = 0; layer < n_layers_; ++layer) entries[layer] = max_entries_of(layer);
  return entries;
}

void StepPlanner::clear() {
  parts_.clear();
  tokens_.clear();
}

int32_t StepPlanner::add(SequenceId sequence, std::span<const int32_t> tokens) {
  const int32_t first = n_tokens();
  parts_.push_back({sequence, first, static_cast<int32_t>(tokens.size()),
                    static_cast<int32_t>(cache_.length(sequence))});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return first;
}

const StepPlan& StepPlanner::build() {
  ++step_;
  angle_positions_.clear();
  for (const Part& part : parts_) {
    for (int32_t i = 0; i < part.n_tokens; ++i) {
      angle_positions_.push_back(part.first_position + i);
    }
  }
  for (RotationGroup& group : groups_) add_angle_rows(group);

  for (int32_t layer = 0; layer < n_layers_; ++layer) {
    const RotationGroup& group = groups_[layer_group_[layer]];
    std::vector<SequenceView>& views = views_[layer];
    std::vector<KvDestination>& destinations = destinations_[layer];
    views.clear();
    destinations.resize(tokens_.size());
    BlockUse* uses = uses_[layer].data();
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      const LayerRule& rule = cache_.rule(part.sequence, layer);
      cache_.destinations(part.sequence, layer,
                          std::span(destinations).subspan(part.first_token, part.n_tokens));
      const std::span<const BlockEntry> entries = cache_.table(part.sequence, layer);
      const auto n_rotations = static_cast<int32_t>(cache_.rotations(part.sequence, layer).size());
      views.push_back({part.sequence, part.first_token, part.n_tokens, part.first_position, entries,
                       &cache_.changes(part.sequence, layer), group.rows.data() + group.offsets[i],
                       n_rotations, rule.visibility, rule.needs.attention ? uses : nullptr});
      if (rule.needs.attention) uses += entries.size();
    }
    std::vector<int64_t>& norms = key_norms_[layer];
    layers_[layer] = {destinations, views, norms.empty() ? nullptr : norms.data(),
                      layer_group_[layer]};
  }
  plan_ = {tokens_, angle_positions_, layers_};
  return plan_;
}

void StepPlanner::add_angle_rows(RotationGroup& group) {
  group.rows.clear();
  group.offsets.clear();
  for (const Part& part : parts_) {
    group.offsets.push_back(static_cast<int32_t>(group.rows.size()));
    for (const Rotation& rotation : cache_.rotations(part.sequence, group.layer)) {
      for (int32_t i = 0; i < part.n_tokens; ++i) {
        const int32_t position = query_position(rotation, part.first_position + i);
        group.rows.push_back(angle_row(position, part.first_token + i));
      }
    }
  }
}

/// The row of the angle table for a position; rows are made once in a step.
int32_t StepPlanner::angle_row(int32_t position, int32_t token) {
  if (angle_positions_[token] == position) return token;
  const size_t mask = angle_table_.size() - 1;
  size_t at = (static_cast<size_t>(static_cast<uint32_t>(position)) * 2654435761U) & mask;
  while (angle_table_[at].step == step_) {
    if (angle_table_[at].position == position) return angle_table_[at].row;
    at = (at + 1) & mask;
  }
  angle_positions_.push_back(position);
  angle_table_[at] = {step_, position, static_cast<int32_t>(angle_positions_.size()) - 1};
  return angle_table_[at].row;
}

void StepPlanner::report(CacheManager& cache) const {
  for (int32_t layer = 0; layer < n_layers_; ++layer) {
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      const PolicyNeeds needs = cache.needs(part.sequence, layer);
      if (!needs.attention && !needs.key_norms) continue;
      const SequenceView& view = views_[layer][i];
      std::span<const BlockUse> uses;
      std::span<const int64_t> norms;
      if (needs.attention) uses = {view.uses, view.entries.size()};
      if (needs.key_norms) {
        norms = std::span(key_norms_[layer]).subspan(part.first_token, part.n_tokens);
      }
      cache.observe(part.sequence, layer, uses, norms);
    }
  }
}

}  // namespace paddock
