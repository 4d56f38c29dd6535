// `lru:B`: least recently used, on live tokens. A block is used by a query that gives it at least
// its fair share of attention: n_heads * (its tokens) / (visible tokens), summed over heads. The
// block whose last use lies furthest back leaves; a block never used counts as used when it was
// written. Original positions unless @compact.
#include "eviction/rules.h"

namespace paddock {
namespace {

class Lru final : public ScoredRule {
 public:
  explicit Lru(const ScoredOptions& options) : ScoredRule("lru", options) {}
  PolicyNeeds needs() const override { return {.attention = true}; }

 protected:
  double score(const LayerView& view, int32_t block) const override {
    return static_cast<double>(view.blocks[block].last_used);
  }
};

}  // namespace

std::shared_ptr<const ScoredRule> make_lru(const ScoredOptions& options) {
  return std::make_shared<Lru>(options);
}

}  // namespace paddock
