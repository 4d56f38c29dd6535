// Which policy rules which layer: the parsed form of a SPEC such as "0-3=full,*=sink:4+1020".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eviction/registry.h"
#include "kv/layer_rule.h"

namespace paddock {

class PolicyMap {
 public:
  /// Parses a SPEC for a model of n_layers; its rules are built in or among `custom`. Refused, each
  /// with a sentence that names the part and the fix: a rule that reaches no layer, a layer beyond
  /// the model, a layer without a rule, bad syntax, elastic layers that seldom decide together.
  static PolicyMap parse(std::string_view spec, int32_t n_layers,
                         const CustomPolicies& custom = {});
  /// One policy for all layers.
  static PolicyMap uniform(const std::shared_ptr<const EvictionPolicy>& policy, int32_t n_layers);

  const LayerRule& layer(int32_t layer) const { return layers_[layer]; }
  int32_t size() const { return static_cast<int32_t>(layers_.size()); }
  /// True if some layer sets no bound to what it holds.
  bool has_unbounded_layer() const;
  /// Error kInvalidArgument if some rule cannot work with blocks of this size.
  void check_block_size(int32_t block_size) const;

  /// True if sequences may be longer than what is resident of them in any layer: each has a bound,
  /// or is elastic and lets survivors look contiguous, so that the end of the context is pressure
  /// like any other.
  bool is_endless() const;
  /// True if some layer's rule goes by budgets that it is given while it runs.
  bool is_elastic() const { return interval_ > 0; }
  /// Lengths at which every elastic layer decides are the multiples of this, the least common one
  /// of their intervals; 0 without an elastic layer.
  int32_t interval() const { return interval_; }
  /// The smallest mean budget that leaves every elastic layer something to choose from in blocks of
  /// this size, and that no elastic rule calls too small; 0 without an elastic layer. Error
  /// kInvalidArgument if there is none.
  int32_t least_budget(int32_t block_size) const;
  /// The least budget that a sequence is given: what elastic rules say, or else, where none says
  /// anything, a block more than the smallest one.
  int32_t floor_budget(int32_t block_size) const;

 private:
  /// Error kInvalidArgument if elastic layers seldom decide together.
  void find_interval();
  /// The first elastic layer for which this budget is too small, and why; -1: none.
  int32_t too_small_in(int32_t budget, int32_t block_size, std::string& why) const;

  std::vector<LayerRule> layers_;
  int32_t interval_ = 0;
};

}  // namespace paddock
