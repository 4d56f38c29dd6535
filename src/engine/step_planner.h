// Turns "these tokens of these sequences" into the StepPlan that a backend runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/step_plan.h"
#include "engine/step_sizes.h"
#include "kv/cache_manager.h"

namespace paddock {

/// Collects the tokens of one step. All memory is taken by the constructor.
class StepPlanner {
 public:
  StepPlanner(CacheManager& cache, int32_t max_tokens);

  void clear();
  /// Adds tokens that the cache has reserved for `sequence`. Returns the flat index of the first.
  int32_t add(SequenceId sequence, std::span<const int32_t> tokens);
  /// The plan for everything added; views live until clear().
  const StepPlan& build();
  /// Whether any layer's rule has something measured.
  bool measures() const { return measures_; }
  /// Hands what the step measured to the cache, before its sequences are committed.
  void report(CacheManager& cache) const;

  int32_t n_tokens() const { return static_cast<int32_t>(tokens_.size()); }
  /// How much a step may bring.
  const StepSizes& sizes() const { return sizes_; }

 private:
  struct Part {
    SequenceId sequence;
    int32_t first_token;
    int32_t n_tokens;
    int32_t first_position;
  };
  /// Of a group of StepSizes.
  struct RotationGroup {
    int32_t layer;                 // one that belongs to it
    std::vector<int32_t> rows;     // per part: [n_rotations, n_tokens of the part]
    std::vector<int32_t> offsets;  // [n_parts] where each part's rows begin
  };
  /// A row of the angle table that this step has made.
  struct AngleRow {
    int64_t step;
    int32_t position, row;
  };

  void add_angle_rows(RotationGroup& group);
  int32_t angle_row(int32_t position, int32_t token);

  CacheManager& cache_;
  int32_t n_layers_;
  StepSizes sizes_;
  bool measures_ = false;
  int64_t step_ = 0;  // tells this plan's rows of angle_table_ from earlier ones
  std::vector<RotationGroup> groups_;
  std::vector<AngleRow> angle_table_;  // open addressing; its size is a power of two
  std::vector<Part> parts_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> angle_positions_;
  std::vector<std::vector<KvDestination>> destinations_;  // [n_layers][n_tokens]
  std::vector<std::vector<SequenceView>> views_;          // [n_layers][n_parts]
  std::vector<std::vector<BlockUse>> uses_;               // [n_layers][entries of all parts]
  std::vector<std::vector<int64_t>> key_norms_;           // [n_layers][n_tokens]
  std::vector<LayerPlan> layers_;
  StepPlan plan_;
};

}  // namespace paddock
