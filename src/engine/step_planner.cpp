#include "engine/step_planner.h"

#include <algorithm>
#include <bit>

namespace paddock {
namespace {

StepSizes sizes_for(const CacheManager& cache, int32_t max_tokens) {
  return step_sizes(
      cache.config(), cache.n_rules(),
      [&](RulesId rules) -> const PolicyMap& { return cache.policies(rules); },
      [&](RulesId rules, int32_t layer) { return cache.max_entries(rules, layer); }, max_tokens);
}

}  // namespace

StepPlanner::StepPlanner(CacheManager& cache, int32_t max_tokens)
    : cache_(cache), n_layers_(cache.config().n_layers), sizes_(sizes_for(cache, max_tokens)) {
  const auto n_sequences = static_cast<size_t>(cache.config().max_sequences);
  destinations_.resize(n_layers_);
  views_.resize(n_layers_);
  uses_.resize(n_layers_);
  key_norms_.resize(n_layers_);
  layers_.resize(n_layers_);
  for (int32_t layer = 0; layer < n_layers_; ++layer) {
    const PolicyNeeds needs = cache.needs(layer);
    destinations_[layer].reserve(max_tokens);
    views_[layer].reserve(n_sequences);
    measures_ |= needs.attention || needs.key_norms;
    if (needs.key_norms) key_norms_[layer].resize(max_tokens);
    uses_[layer].resize(n_sequences * static_cast<size_t>(sizes_.measured_entries[layer]));
  }
  for (const StepSizes::RotationGroup& group : sizes_.groups) {
    groups_.push_back({group.layer, {}, {}});
    groups_.back().rows.reserve(static_cast<size_t>(group.rows));
    groups_.back().offsets.reserve(n_sequences);
  }
  parts_.reserve(n_sequences);
  tokens_.reserve(max_tokens);
  angle_positions_.reserve(sizes_.max_angle_rows);
  angle_table_.resize(std::bit_ceil(2 * static_cast<size_t>(sizes_.max_angle_rows)));
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
    const RotationGroup& group = groups_[sizes_.layer_group[layer]];
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
                      sizes_.layer_group[layer]};
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
