// `full`: a query sees everything before it. Positions are original.
#include "eviction/rules.h"

namespace paddock {
namespace {

class Full final : public EvictionPolicy {
 public:
  std::string name() const override { return "full"; }
  TokenVisibility visibility(int32_t) const override { return {}; }
};

}  // namespace

std::shared_ptr<const EvictionPolicy> make_full() { return std::make_shared<Full>(); }

}  // namespace paddock
