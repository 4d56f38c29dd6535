// Whether a policy's needs() name what its answers go by: what is not named an engine does not
// measure, and what is named for nothing costs time.
#pragma once

#include "diagnose/scenes.h"

namespace paddock {

/// A policy that trims a layer.
struct AskedPolicy {
  const EvictionPolicy& policy;
  const LayerRule& rule;  // that it is in the layer
  int32_t layer;
  bool shares;  // whether need() is asked as well
};

/// Asks about made-up scenes, and again with other measurements in them.
void check_needs(const AskedPolicy& asked, const ConformanceOptions& options, Dice& dice,
                 Findings& findings);

}  // namespace paddock
