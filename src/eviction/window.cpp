// `window:W`: sliding window attention (Longformer, arXiv 2004.05150). A query at position t sees
// p <= t and p > t - W. Compact and original positions agree: RoPE depends on differences alone.
#include <fmt/format.h>

#include "eviction/rules.h"

namespace paddock {
namespace {

class Window final : public EvictionPolicy {
 public:
  Window(int32_t window, Positions positions) : window_(window), positions_(positions) {}

  std::string name() const override {
    return fmt::format("window:{}{}", window_, positions_ == Positions::kCompact ? "@compact" : "");
  }
  TokenVisibility visibility(int32_t) const override { return {0, window_}; }
  Positions positions() const override { return positions_; }

 private:
  int32_t window_;
  Positions positions_;
};

}  // namespace

std::shared_ptr<const EvictionPolicy> make_window(int32_t window, Positions positions) {
  return std::make_shared<Window>(window, positions);
}

}  // namespace paddock
