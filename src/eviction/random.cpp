// `random:B`: blocks leave by lot, the floor that every other rule must beat. The lot is a hash
// (splitmix64) of the seed (@seed:N, 0 unless given), the layer, the block's position and the
// sequence's length, so the same text loses the same blocks. Original positions unless @compact.
#include "core/mix.h"
#include "eviction/rules.h"

namespace paddock {
namespace {

class Random final : public ScoredRule {
 public:
  explicit Random(const ScoredOptions& options) : ScoredRule("random", options) {}

 protected:
  double score(const LayerView& view, int32_t block) const override {
    uint64_t lot = mix(static_cast<uint64_t>(options().seed.value_or(0)));
    lot = mix(lot ^ static_cast<uint64_t>(view.layer));
    lot = mix(lot ^ static_cast<uint64_t>(view.blocks[block].first_position));
    lot = mix(lot ^ static_cast<uint64_t>(view.length));
    return static_cast<double>(lot >> 11);
  }
};

}  // namespace

std::shared_ptr<const ScoredRule> make_random(const ScoredOptions& options) {
  return std::make_shared<Random>(options);
}

}  // namespace paddock
