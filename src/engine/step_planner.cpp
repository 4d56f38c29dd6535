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
    const LayerRule& rule = cache.rule(layer);
    layer_group_.push_back(group_of(layer));
    destinations_[layer].reserve(max_tokens);
    views_[layer].reserve(n_sequences);
    measures_ |= rule.needs.attention || rule.needs.key_norms;
    if (rule.needs.key_norms) key_norms_[layer].resize(max_tokens);
    if (!rule.needs.attention) continue;
    const int64_t entries = CacheManager::max_entries(rule, config);
    uses_[layer].resize(n_sequences * entries);
    max_measured_entries_ = std::max(max_measured_entries_, entries);
  }
  int64_t rows = 0;
  for (RotationGroup& group : groups_) {
    const LayerRule& rule = cache.rule(group.layer);
    int64_t own = 0;
    if (rule.is_elastic && rule.moves_queries()) {
      // A table has one rotation until its budget falls, and steps of it are then so small that it
      // has no more rows than it may have entries.
      own = max_tokens + CacheManager::max_entries(rule, config) * config.max_sequences;
    } else if (rule.moves_queries()) {
      // Steps end where the rule decides, so a sequence brings few tokens at once.
      const int64_t max = rule.schedule.every > 0 ? rule.schedule.every : config.max_chunk;
      own = CacheManager::max_entries(rule, config) *
            std::min<int64_t>(max_tokens, max * config.max_sequences);
    } else {
      own = static_cast<int64_t>(rule.rotations.size()) * max_tokens;
    }
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

int32_t StepPlanner::group_of(int32_t layer) {
  const LayerRule& rule = cache_.rule(layer);
  for (size_t i = 0; i < groups_.size() && !rule.moves_queries(); ++i) {
    const LayerRule& other = cache_.rule(groups_[i].layer);
    if (!other.moves_queries() && equal(other.rotations, rule.rotations)) {
      return static_cast<int32_t>(i);
    }
  }
  groups_.push_back({layer, {}, {}});
  return static_cast<int32_t>(groups_.size()) - 1;
}

std::vector<int64_t> StepPlanner::max_entries() const {
  std::vector<int64_t> entries(n_layers_);
  for (int32_t layer = 0; layer < n_layers_; ++layer) {
    entries[layer] = CacheManager::max_entries(cache_.rule(layer), cache_.config());
  }
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
    const LayerRule& rule = cache_.rule(layer);
    std::vector<SequenceView>& views = views_[layer];
    std::vector<KvDestination>& destinations = destinations_[layer];
    views.clear();
    destinations.resize(tokens_.size());
    BlockUse* uses = rule.needs.attention ? uses_[layer].data() : nullptr;
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      cache_.destinations(part.sequence, layer,
                          std::span(destinations).subspan(part.first_token, part.n_tokens));
      const std::span<const BlockEntry> entries = cache_.table(part.sequence, layer);
      const auto n_rotations = static_cast<int32_t>(cache_.rotations(part.sequence, layer).size());
      views.push_back({part.sequence, part.first_token, part.n_tokens, part.first_position, entries,
                       &cache_.changes(part.sequence, layer), group.rows.data() + group.offsets[i],
                       n_rotations, rule.visibility, uses});
      if (uses != nullptr) uses += entries.size();
    }
    layers_[layer] = {destinations, views,
                      rule.needs.key_norms ? key_norms_[layer].data() : nullptr,
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
    const PolicyNeeds needs = cache.rule(layer).needs;
    if (!needs.attention && !needs.key_norms) continue;
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
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
