// Which policy rules which layer: the parsed form of a SPEC such as "0-3=full,*=sink:4+1020".
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eviction/registry.h"
#include "kv/layer_rule.h"

namespace paddock {

/// Positions beyond its budget that a sequence has room for when its budget has fallen: those up to
/// its next decision, `interval` of them, or an eighth of the budget where that is more, so that
/// pressure does not come back with the next page.
inline int64_t slack_of(int64_t interval, int64_t budget) { return std::max(interval, budget / 8); }

class PolicyMap {
 public:
  /// Parses a SPEC for a model of n_layers; its rules are built in or among `custom`. Refused, each
  /// with a sentence that names the part and the fix: a rule that reaches no layer, a layer beyond
  /// the model, a layer without a rule, bad syntax, elastic layers that seldom decide together.
  static PolicyMap parse(std::string_view spec, int32_t n_layers,
                         const CustomPolicies& custom = {});
  /// Whether some rule of a SPEC, which may be wrong, is one of `custom`.
  static bool names_custom(std::string_view spec, const CustomPolicies& custom);
  /// One policy for all layers.
  static PolicyMap uniform(const std::shared_ptr<const EvictionPolicy>& policy, int32_t n_layers);

  const LayerRule& layer(int32_t layer) const { return layers_[layer]; }
  int32_t size() const { return static_cast<int32_t>(layers_.size()); }
  /// True if no layer ever drops anything.
  bool keeps_all() const;
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

  /// Layers that share what they may keep by need, as one object rules them, and what that is on
  /// average; kUnlimited: what an elastic sequence is given.
  struct Sharers {
    std::vector<int32_t> layers;
    int32_t budget = kUnlimited;
  };
  std::span<const Sharers> sharers() const { return sharers_; }
  /// The least share that leaves a layer that shares something to choose from in blocks of this
  /// size. Error kInvalidArgument where its part of the budget does not.
  int32_t least_share(int32_t layer, int32_t block_size) const;
  /// The sum of pages(layer), where layers that share by need have no more in all than they may.
  template <typename Pages>
  int64_t sum_pages(int64_t block_size, const Pages& pages) const {
    int64_t sum = 0;
    for (int32_t layer = 0; layer < size(); ++layer) sum += pages(layer);
    for (const Sharers& group : sharers_) {
      int64_t own = 0;
      for (const int32_t layer : group.layers) own += pages(layer);
      sum -= std::max<int64_t>(0, own - most_pages(group, block_size));
    }
    return sum;
  }

 private:
  /// Error kInvalidArgument if elastic layers seldom decide together.
  void find_interval();
  /// Error kInvalidArgument if layers that share do not decide together.
  void find_sharers();
  /// Which of sharers_ has the rule's layers; their number if none does yet.
  size_t group_of(const LayerRule& rule) const;
  /// Pages that the layers have at once in all, between two decisions.
  int64_t most_pages(const Sharers& group, int64_t block_size) const;
  /// Whether the budget is enough for the layer; if not, why. `share`: of one that shares.
  bool is_enough(int32_t layer, int32_t budget, int32_t block_size, std::string& why) const;
  /// The first elastic layer for which this budget is too small, and why; -1: none.
  int32_t too_small_in(int32_t budget, int32_t block_size, std::string& why) const;

  std::vector<LayerRule> layers_;
  std::vector<Sharers> sharers_;
  int32_t interval_ = 0;
};

}  // namespace paddock
