#include "engine/step_planner.h"

#include <algorithm>

namespace paddock {
namespace {

bool equal(std::span<const Rotation> a, std::span<const Rotation> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Rotation& x, const Rotation& y) {
                      return x.query_shift == y.query_shift && x.query_cap == y.query_cap;
                    });
}

}  // namespace

StepPlanner::StepPlanner(const CacheManager& cache, int32_t n_layers, int32_t max_tokens,
                         int32_t max_sequences)
    : cache_(cache) {
  size_t rotations = 0;
  for (int32_t layer = 0; layer < n_layers; ++layer) {
    const std::span<const Rotation> own = cache.rotations(layer);
    auto group = std::find_if(groups_.begin(), groups_.end(),
                              [&](const RotationGroup& g) { return equal(g.rotations, own); });
    if (group == groups_.end()) {
      groups_.push_back({{own.begin(), own.end()}, {}});
      groups_.back().rows.reserve(own.size() * max_tokens);
      rotations += own.size();
      group = groups_.end() - 1;
    }
    layer_group_.push_back(static_cast<int32_t>(group - groups_.begin()));
  }
  max_angle_rows_ = max_tokens * static_cast<int32_t>(1 + rotations);
  parts_.reserve(max_sequences);
  tokens_.reserve(max_tokens);
  angle_positions_.reserve(max_angle_rows_);
  destinations_.resize(n_layers);
  views_.resize(n_layers);
  layers_.resize(n_layers);
  for (int32_t layer = 0; layer < n_layers; ++layer) {
    destinations_[layer].reserve(max_tokens);
    views_[layer].reserve(max_sequences);
  }
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
  angle_positions_.clear();
  for (const Part& part : parts_) {
    for (int32_t i = 0; i < part.n_tokens; ++i) {
      angle_positions_.push_back(part.first_position + i);
    }
  }
  for (RotationGroup& group : groups_) add_angle_rows(group);

  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const auto index = static_cast<int32_t>(layer);
    const RotationGroup& group = groups_[layer_group_[layer]];
    const auto n_rotations = static_cast<int32_t>(group.rotations.size());
    std::vector<SequenceView>& views = views_[layer];
    std::vector<KvDestination>& destinations = destinations_[layer];
    views.clear();
    destinations.resize(tokens_.size());
    for (const Part& part : parts_) {
      cache_.destinations(part.sequence, index,
                          std::span(destinations).subspan(part.first_token, part.n_tokens));
      views.push_back({part.first_token, part.n_tokens, part.first_position,
                       cache_.table(part.sequence, index),
                       group.rows.data() + int64_t{n_rotations} * part.first_token, n_rotations,
                       cache_.visibility(index)});
    }
    layers_[layer] = {destinations, views};
  }
  plan_ = {tokens_, angle_positions_, layers_};
  return plan_;
}

void StepPlanner::add_angle_rows(RotationGroup& group) {
  group.rows.clear();
  for (const Part& part : parts_) {
    for (const Rotation& rotation : group.rotations) {
      for (int32_t i = 0; i < part.n_tokens; ++i) {
        const int32_t position = query_position(rotation, part.first_position + i);
        group.rows.push_back(angle_row(position, part.first_token + i));
      }
    }
  }
}

int32_t StepPlanner::angle_row(int32_t position, int32_t token) {
  if (angle_positions_[token] == position) return token;
  // A capped rotation asks for the same position again and again.
  if (angle_positions_.back() != position) angle_positions_.push_back(position);
  return static_cast<int32_t>(angle_positions_.size()) - 1;
}

}  // namespace paddock
