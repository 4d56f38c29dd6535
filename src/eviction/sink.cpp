// `sink:S+W`: attention sinks (StreamingLLM, arXiv 2309.17453). A query at position t sees the
// first S positions and the W newest: p <= t and (p < S or p > t - W). Compact by default: the
// sinks are met at in-cache positions, which caps the query's position at S + W - 1 for them.
#include <fmt/format.h>

#include "eviction/rules.h"

namespace paddock {
namespace {

class Sink final : public EvictionPolicy {
 public:
  Sink(int32_t sinks, int32_t window, Positions positions)
      : sinks_(sinks), window_(window), positions_(positions) {}

  std::string name() const override {
    return fmt::format("sink:{}+{}{}", sinks_, window_,
                       positions_ == Positions::kOriginal ? "@original" : "");
  }
  TokenVisibility visibility(int32_t) const override { return {sinks_, window_}; }
  Positions positions() const override { return positions_; }

 private:
  int32_t sinks_, window_;
  Positions positions_;
};

}  // namespace

std::shared_ptr<const EvictionPolicy> make_sink(int32_t sinks, int32_t window,
                                                Positions positions) {
  return std::make_shared<Sink>(sinks, window, positions);
}

}  // namespace paddock
