// What hosts do at random to their own requests, and to their engine: callbacks that throw, logits
// that they spoil, stops and deadlines that came before the request did, hooks that throw once.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>

#include "support/moody.h"

namespace paddock::test {

/// From one number to another, both included.
using Draw = std::function<int(int from, int to)>;

/// What the host of a request does, and with which of its tokens, from 1.
struct Whim {
  enum class Kind {
    kNone,
    kActs,         // uses the engine inside on_token
    kTokenThrows,  // on_token throws
    kTokenStops,   // and says that it is enough
    kLogitsThrow,  // logits_processor throws
    kLogitsSpoil,  // and leaves what is no number
    kStopped,      // it was stopped before it was added
    kOverdue,      // its deadline had passed
    kHasTime,      // has not, by far
    kIsInTime,     // will have, soon
  };
  Kind kind = Kind::kNone;
  int at = 0;

  static Whim drawn(const Draw& draw) {
    if (draw(0, 1) == 0) return {};
    return {static_cast<Kind>(draw(1, static_cast<int>(Kind::kIsInTime))), draw(1, 10)};
  }

  /// Puts it into a request's options. `act`: for kActs.
  void give(GenerateOptions& options, const std::function<void()>& act) const;
  /// What came of it must be what it had to come to. `made`: tokens.
  void check(const GenerateResult& result, int32_t max_tokens) const;
  /// Whether the request ended because of it.
  bool has_failed(const GenerateResult& result) const {
    return result.finish_reason == FinishReason::kError &&
           (kind == Kind::kTokenThrows || kind == Kind::kLogitsThrow || kind == Kind::kLogitsSpoil);
  }
  bool may_expire() const { return kind == Kind::kOverdue || kind == Kind::kIsInTime; }
  bool may_cancel() const { return kind == Kind::kStopped || kind == Kind::kTokenStops; }
};

inline std::stop_token stopped_token() {
  static const auto source = std::make_unique<std::stop_source>();
  source->request_stop();
  return source->get_token();
}

inline void Whim::give(GenerateOptions& options, const std::function<void()>& act) const {
  const bool spoils = kind == Kind::kLogitsSpoil;
  switch (kind) {
    case Kind::kNone:
      return;
    case Kind::kActs:
      options.on_token = [act](const TokenEvent&) {
        act();
        return true;
      };
      return;
    case Kind::kTokenThrows:
      options.on_token = [at = at, n = 0](const TokenEvent&) mutable {
        if (++n == at) throw std::runtime_error("a whim");
        return true;
      };
      return;
    case Kind::kTokenStops:
      options.on_token = [at = at, n = 0](const TokenEvent&) mutable { return ++n < at; };
      return;
    case Kind::kLogitsThrow:
    case Kind::kLogitsSpoil:
      options.logits_processor = [at = at, n = 0, spoils, before = options.logits_processor](
                                     std::span<const TokenId> tokens,
                                     std::span<float> logits) mutable {
        if (before) before(tokens, logits);
        if (++n != at) return;
        if (!spoils) throw std::runtime_error("a whim");
        logits[3] = NAN;
      };
      return;
    case Kind::kStopped:
      options.stop_token = stopped_token();
      return;
    case Kind::kOverdue:
      options.deadline = std::chrono::steady_clock::now() - std::chrono::hours(1);
      return;
    case Kind::kHasTime:
      options.deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
      return;
    case Kind::kIsInTime:
      options.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
      return;
  }
}

inline void Whim::check(const GenerateResult& result, int32_t max_tokens) const {
  const auto made = static_cast<int>(result.tokens.size());
  const FinishReason reason = result.finish_reason;
  const bool is_error = reason == FinishReason::kError;
  const auto said = [&](const char* what) {
    EXPECT_NE(result.error.find(what), std::string::npos) << result.error;
  };
  switch (kind) {
    case Kind::kTokenThrows:
      if (is_error) said("on_token threw: a whim");
      EXPECT_EQ(made, is_error ? at : std::min(made, at - 1)) << "the token is in the answer";
      return;
    case Kind::kTokenStops:
      EXPECT_LE(made, at);
      EXPECT_TRUE(made < at || reason == FinishReason::kCancelled || made == max_tokens);
      return;
    case Kind::kLogitsThrow:
    case Kind::kLogitsSpoil:
      if (is_error) {
        said(kind == Kind::kLogitsThrow ? "logits_processor threw: a whim"
                                        : "the logit of token 3");
      }
      EXPECT_EQ(made, is_error ? at - 1 : std::min(made, at - 1)) << "nothing was chosen";
      return;
    case Kind::kStopped:
    case Kind::kOverdue:
      EXPECT_TRUE(reason == FinishReason::kCancelled ||
                  (kind == Kind::kOverdue && reason == FinishReason::kDeadline))
          << finish_reason_name(reason);
      EXPECT_EQ(made, 0);
      EXPECT_EQ(result.cached_tokens + result.timings.prefill_tokens, 0) << "it never ran";
      return;
    case Kind::kNone:
    case Kind::kActs:
    case Kind::kHasTime:
    case Kind::kIsInTime:
      return;
  }
}

/// Hooks of an engine that throw, once, after a while; and an order of blocks that always might.
/// Lives longer than the engine.
class WhimsicalHooks {
 public:
  void install(const Draw& draw, KvOptions& kv) {
    if (draw(0, 1) == 0) {
      kv.on_event = [this, left = draw(0, 30)](const KvEvent&) mutable {
        throw_after(left, event_);
      };
    }
    if (draw(0, 2) == 0) {
      kv.trace.sink = [this, left = draw(1, 60)](std::string_view) mutable {
        throw_after(left, trace_);
      };
      kv.trace.tokens = kv.trace.scores = draw(0, 1) == 0;
    }
    if (draw(0, 1) == 0) {
      kv.on_pressure = [this, draw, left = draw(0, 12)](const KvShortage&) mutable {
        throw_after(left, pressure_);
        return draw(0, 3) == 0 ? KvRelief::kWait : KvRelief::kNone;
      };
    }
    if (draw(0, 2) > 0) return;
    const auto seed = static_cast<uint32_t>(draw(0, 1 << 20));
    kv.custom_reclaim = [seed] { return std::make_unique<MoodyOrder>(seed); };
  }
  /// How many of them have thrown, each of them once.
  int64_t failures() const { return event_ + trace_ + pressure_; }

 private:
  void throw_after(int& left, int64_t& thrown) {
    EXPECT_EQ(thrown, 0) << "it is called no more";
    if (left-- > 0) return;
    ++thrown;
    throw std::runtime_error("a whim");
  }
  int64_t event_ = 0, trace_ = 0, pressure_ = 0;
};

}  // namespace paddock::test
