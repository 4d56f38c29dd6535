// What is asked of an engine, and what each makes of it alone: an engine that has memory for all.
#pragma once

#include <cmath>
#include <map>

#include "support/moody.h"
#include "support/shared_memory.h"

namespace paddock::test {

/// Rules some tokens out, by how long the text is.
inline void ban_some(std::span<const TokenId> tokens, std::span<float> logits) {
  for (size_t i = tokens.size() % 5; i < logits.size(); i += 5) logits[i] = -INFINITY;
}

/// In place of a number of tokens: what else is done to a session.
constexpr int32_t kFed = -1, kProtected = -2, kUnprotected = -3;

/// What was asked for: by a request, or of a session.
struct Turn {
  size_t begin = 0, length = 0;  // of text_at(), or of the session's positions
  int32_t n_tokens = 0;
  uint64_t seed = 0;
  std::string policy{};  // that its text goes by; empty: the engine's own
  bool bans = false;     // its host rules tokens out
  auto operator<=>(const Turn&) const = default;

  GenerateOptions options() const {
    GenerateOptions o = greedy(n_tokens);
    o.sampling.temperature = 1.1F;
    o.sampling.seed = seed;
    o.kv_policy = policy;
    if (bans) o.logits_processor = ban_some;
    return o;
  }
};

/// What turns one after another make alone.
class References {
 public:
  explicit References(EngineOptions options) {
    options.max_sequences = 1;
    options.kv.budget_bytes = 0;
    engine_ = std::make_unique<Engine>(tiny(), options);
  }
  const std::vector<TokenId>& of(const std::vector<Turn>& turns) {
    const auto [at, is_new] = known_.try_emplace(turns);
    if (!is_new) return at->second;
    const SessionId session = engine_->open_session();
    for (Turn turn : turns) {
      turn.policy.clear();  // these are what the engine has
      take(session, turn, at->second);
    }
    engine_->close_session(session);
    return at->second;
  }

 private:
  void take(SessionId session, const Turn& turn, std::vector<TokenId>& made) {
    const auto first = static_cast<int64_t>(turn.begin), n = static_cast<int64_t>(turn.length);
    if (turn.n_tokens == kProtected) return engine_->protect(session, first, n);
    if (turn.n_tokens == kUnprotected) return engine_->unprotect(session, first, n);
    const std::vector<TokenId> text = text_at(turn.begin, turn.length);
    if (turn.n_tokens == kFed) {
      engine_->feed(session, text);
    } else {
      made = engine_->generate(session, text, turn.options()).tokens;
    }
  }

  std::unique_ptr<Engine> engine_;
  std::map<std::vector<Turn>, std::vector<TokenId>> known_;
};

/// Of sequences under this rule that nothing is taken from.
inline References& references_of(const std::string& policy, Precision precision) {
  static std::map<std::pair<std::string, Precision>, References> known;
  EngineOptions options = shared_memory(policy, 0);
  options.precision = precision;
  options.kv.custom_policies = moody_policies();
  return known.try_emplace({policy, precision}, options).first->second;
}

}  // namespace paddock::test
