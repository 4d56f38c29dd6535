// Pins that a host takes and lets go of at random, and what has to be there because of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "support/random_host.h"
#include "support/shared_memory.h"

namespace paddock::test {

/// What a prompt must find, as long as the pin holds.
struct PinExpectation {
  PinId id = 0;
  int64_t tokens = 0;
  int64_t lost = 0;  // pins that had given way by then
};

class RandomPins {
 public:
  /// Of a text under that SPEC; empty: the engine's own. `inside`: a step, which does not count.
  void pin(Engine& engine, const std::string& policy, const Draw& draw, bool inside) {
    const auto begin = static_cast<size_t>(draw(0, 3));
    std::vector<TokenId> text = text_at(begin, static_cast<size_t>(draw(4, 50)));
    PinOptions options;
    options.priority = draw(-1, 1);
    options.steps = draw(0, 2) == 0 ? draw(1, 40) : 0;
    options.kv_policy = policy;
    try {
      const Pin got = engine.pin(text, options);
      EXPECT_GT(got.tokens, 0);
      EXPECT_EQ(got.tokens % engine.options().kv.block_size, 0);
      ASSERT_LE(got.tokens, static_cast<int64_t>(text.size()));
      text.resize(static_cast<size_t>(got.tokens));
      const int64_t left = options.steps + (inside && options.steps > 0 ? 1 : 0);
      held_.push_back({got.id, begin, std::move(text), policy, left});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
    }
  }
  void unpin(Engine& engine, const Draw& draw) {
    if (held_.empty()) return;
    const auto at = held_.begin() + draw(0, static_cast<int>(held_.size()) - 1);
    const int64_t lost = engine.stats().pins_lost;
    EXPECT_TRUE(engine.unpin(at->id) || lost > 0) << "nobody else let go of it";
    held_.erase(at);
  }
  /// A step is over.
  void passed(const Engine& engine) {
    std::erase_if(held_, [](Held& pin) { return pin.left > 0 && --pin.left == 0; });
    const EngineStats stats = engine.stats();
    const auto n_missing = static_cast<int64_t>(held_.size()) - stats.pins;
    EXPECT_GE(n_missing, 0) << "it holds longer than it was to";
    EXPECT_LE(n_missing, stats.pins_lost) << "it was to hold longer";
  }
  /// Makes a prompt, now and then, one that goes on behind a pinned text.
  void lengthen(const Draw& draw, size_t& begin, size_t& length, std::string& policy) const {
    if (held_.empty() || draw(0, 2) == 0) return;
    const Held& pin = held_[static_cast<size_t>(draw(0, static_cast<int>(held_.size()) - 1))];
    begin = pin.begin;
    length = pin.text.size() + static_cast<size_t>(draw(1, 8));
    policy = pin.policy;
  }
  /// Of one that the text goes on behind, if there is one.
  std::optional<PinExpectation> beginning(const Engine& engine, const std::string& policy,
                                          const std::vector<TokenId>& text) const {
    for (const Held& pin : held_) {
      if (pin.policy != policy || pin.text.size() >= text.size()) continue;
      if (!std::equal(pin.text.begin(), pin.text.end(), text.begin())) continue;
      return PinExpectation{pin.id, static_cast<int64_t>(pin.text.size()),
                            engine.stats().pins_lost};
    }
    return std::nullopt;
  }
  /// Whether it has held all the time.
  bool still_holds(const Engine& engine, const PinExpectation& expected) const {
    const bool is_held = std::any_of(held_.begin(), held_.end(),
                                     [&](const Held& pin) { return pin.id == expected.id; });
    return is_held && engine.stats().pins_lost == expected.lost;
  }
  /// Of all.
  void let_go(Engine& engine) {
    const int32_t n = engine.stats().pins;
    const auto gone =
        std::count_if(held_.begin(), held_.end(), [&](Held& pin) { return engine.unpin(pin.id); });
    EXPECT_EQ(gone, n);
    EXPECT_EQ(engine.stats().pins, 0);
    held_.clear();
  }

 private:
  struct Held {
    PinId id;
    size_t begin;               // of text_at()
    std::vector<TokenId> text;  // that it holds
    std::string policy;
    int64_t left;  // steps; 0: for ever
  };
  std::vector<Held> held_;
};

}  // namespace paddock::test
