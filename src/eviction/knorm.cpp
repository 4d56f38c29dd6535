// `knorm:B`: keys of small norm stay (Devoto et al., "A Simple and Effective L2 Norm-Based Strategy
// for KV Cache Compression", arXiv 2406.11430): they are the ones that attention favours. Needs no
// attention at all:
//   score(block) = - sum over KV heads of ||key||_2, mean over its tokens
// The paper chooses per head; here the heads of a layer choose together, by their sum. Original
// positions unless @compact.
#include "eviction/rules.h"

namespace paddock {
namespace {

class KeyNorm final : public ScoredRule {
 public:
  explicit KeyNorm(const ScoredOptions& options) : ScoredRule("knorm", options) {}
  PolicyNeeds needs() const override { return {.key_norms = true}; }

 protected:
  double score(const LayerView& view, int32_t block) const override {
    return -view.blocks[block].key_norm;
  }
};

}  // namespace

std::shared_ptr<const ScoredRule> make_knorm(const ScoredOptions& options) {
  return std::make_shared<KeyNorm>(options);
}

}  // namespace paddock
