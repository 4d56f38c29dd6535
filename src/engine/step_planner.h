// Turns "these tokens of these sequences" into the StepPlan that a backend runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "kv/cache_manager.h"

namespace paddock {

/// Collects the tokens of one step. All memory is taken by the constructor.
class StepPlanner {
 public:
  StepPlanner(const CacheManager& cache, int32_t n_layers, int32_t max_tokens,
              int32_t max_sequences);

  void clear();
  /// Adds tokens that the cache has reserved for `sequence`. Returns the flat index of the first.
  int32_t add(SequenceId sequence, std::span<const int32_t> tokens);
  /// The plan for everything added; views live until clear().
  const StepPlan& build();

  int32_t n_tokens() const { return static_cast<int32_t>(tokens_.size()); }
  int32_t max_angle_rows() const { return max_angle_rows_; }

 private:
  struct Part {
    SequenceId sequence;
    int32_t first_token;
    int32_t n_tokens;
    int32_t first_position;
  };
  /// Layers whose tables use equal rotations share their angle rows.
  struct RotationGroup {
    std::vector<Rotation> rotations;
    std::vector<int32_t> rows;  // per part: [n_rotations, n_tokens of the part]
  };

  void add_angle_rows(RotationGroup& group);
  int32_t angle_row(int32_t position, int32_t token);

  const CacheManager& cache_;
  int32_t max_angle_rows_;
  std::vector<RotationGroup> groups_;
  std::vector<int32_t> layer_group_;  // [n_layers]
  std::vector<Part> parts_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> angle_positions_;
  std::vector<std::vector<KvDestination>> destinations_;  // [n_layers][n_tokens]
  std::vector<std::vector<SequenceView>> views_;          // [n_layers][n_parts]
  std::vector<LayerPlan> layers_;
  StepPlan plan_;
};

}  // namespace paddock
