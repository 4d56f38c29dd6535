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
  /// the model, a layer without a rule, bad syntax.
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

 private:
  std::vector<LayerRule> layers_;
};

}  // namespace paddock
