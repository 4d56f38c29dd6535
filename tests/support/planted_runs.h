// Runs with one thing wrong with each, recorded: what a doctor has to find, and nothing else.
#pragma once

#include <paddock/doctor.h>

#include <random>
#include <string>
#include <vector>

#include "support/fickle_policy.h"
#include "support/shared_memory.h"

namespace paddock::test {

struct PlantedRun {
  std::string name;
  std::vector<Ailment> causes;  ///< what was planted
  std::string bytes;            ///< the trace
};

inline std::string recorded(EngineOptions o, bool tokens, const std::function<void(Engine&)>& use) {
  std::string bytes;
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  o.kv.trace.tokens = tokens;
  {
    Engine engine(tiny(), o);
    use(engine);
  }
  return bytes;
}

/// A text of its own for each seed.
inline std::vector<TokenId> words(uint32_t seed, size_t n) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < n; ++i) tokens.push_back(static_cast<TokenId>(3 + random() % 120));
  return tokens;
}

inline std::vector<TokenId> joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// All at once, each with so many tokens to make.
inline std::function<void(Engine&)> together(size_t requests, size_t prompt, int32_t made) {
  return [=](Engine& engine) {
    for (size_t i = 0; i < requests; ++i) {
      engine.add(words(static_cast<uint32_t>(i) + 1, prompt), greedy(made));
    }
    finish_all(engine);
  };
}
/// One after another.
inline std::function<void(Engine&)> in_turn(std::vector<std::vector<TokenId>> prompts,
                                            int32_t made) {
  return [prompts = std::move(prompts), made](Engine& engine) {
    for (const std::vector<TokenId>& prompt : prompts) engine.generate(prompt, greedy(made));
  };
}

/// A long session among short requests.
inline void be_greedy(Engine& engine) {
  engine.add(words(99, 24), greedy(96));
  for (uint32_t i = 0; i < 40; ++i) engine.add(words(i, 12), greedy(12));
  finish_all(engine);
}

inline std::vector<std::vector<TokenId>> stamped(size_t n, size_t at) {
  std::vector<std::vector<TokenId>> prompts;
  for (uint32_t i = 0; i < n; ++i) {
    prompts.push_back(joined(joined(words(7, at), words(100 + i, 5)), words(8, 60)));
  }
  return prompts;
}

inline std::vector<PlantedRun> planted_runs() {
  std::vector<PlantedRun> all;
  const auto plant = [&](const char* name, std::vector<Ailment> causes, EngineOptions o,
                         const std::function<void(Engine&)>& use, bool tokens = false) {
    all.push_back({name, std::move(causes), recorded(std::move(o), tokens, use)});
  };
  const auto roomy = [](const std::string& policy) { return shared_memory(policy, 400); };
  plant("healthy", {}, roomy("full"), together(6, 30, 20));
  plant("healthy, a common beginning", {}, roomy("full"),
        in_turn({joined(words(5, 40), words(1, 9)), joined(words(5, 40), words(2, 9)),
                 joined(words(5, 40), words(3, 9)), joined(words(5, 40), words(4, 9))},
                8),
        true);
  plant("healthy, a session", {}, roomy("0=full,1=window:24"), [](Engine& engine) {
    const SessionId session = engine.open_session();
    for (uint32_t i = 0; i < 4; ++i) engine.generate(session, words(i, 10), greedy(10));
  });
  plant("healthy, elastic", {}, roomy("lru@every:8"), together(4, 20, 20));
  plant("too little memory", {Ailment::kPoolTooSmall}, shared_memory("full", 70),
        together(5, 30, 30));
  plant("too little memory, elastic", {Ailment::kPoolTooSmall}, shared_memory("h2o@every:8", 70),
        together(5, 40, 40));
  plant("a full pool", {Ailment::kPoolTooSmall}, shared_memory("full", 40, 1), [](Engine& engine) {
    engine.generate(words(1, 30), greedy(20));
    engine.generate(words(2, 30), greedy(70));
  });
  plant("a greedy session", {Ailment::kGreedySequence}, shared_memory("full", 68), be_greedy);
  EngineOptions large = shared_memory("full", 0);
  large.kv.block_size = 64;
  plant("blocks too large", {Ailment::kBlocksTooLarge}, large, together(8, 10, 6));
  plant("a time stamp", {Ailment::kPrefixBroken}, roomy("full"), in_turn(stamped(5, 2), 4), true);
  plant("a time stamp, no tokens", {Ailment::kPrefixBroken}, roomy("full"),
        in_turn(stamped(5, 6), 4));
  plant("rules that share nothing", {Ailment::kPrefixNotShared}, roomy("h2o:96@every:8"),
        in_turn({words(5, 40), words(5, 40), words(5, 40)}, 8));
  plant(
      "kept too short", {Ailment::kPrefixReclaimed}, shared_memory("full", 68),
      in_turn({words(1, 60), words(2, 60), words(3, 60), words(1, 60), words(2, 60), words(3, 60)},
              4));
  plant("the start is lost", {Ailment::kWindowDropsStart}, roomy("window:24"),
        in_turn({words(1, 40)}, 40));
  plant("a budget below memory", {Ailment::kBudgetBelowMemory}, roomy("h2o:24@every:8"),
        in_turn({words(1, 40)}, 40));
  plant("a budget spent", {Ailment::kBudgetSpent}, shared_memory("h2o:24@every:8", 0, 1),
        in_turn({words(1, 50)}, 70));
  EngineOptions beyond = shared_memory("full", 0, 1);
  beyond.context = 200;
  plant("beyond the context", {Ailment::kBeyondContext}, beyond, in_turn({words(1, 60)}, 100));
  EngineOptions narrow = shared_memory("full", 0, 1);
  narrow.context = 48;
  plant("a full context", {Ailment::kContextFull}, narrow, in_turn({words(1, 40)}, 30));
  EngineOptions kept_within = shared_memory("sink:4@every:8", 0, 1);
  kept_within.context = 64;
  plant("a context that is kept within", {Ailment::kContextFull}, kept_within,
        in_turn({words(1, 40)}, 60));
  EngineOptions fickle = roomy("fickle:h2o:24@every:8");
  fickle.kv.custom_policies = fickle_policies();
  plant("a wrong policy", {Ailment::kPolicyViolation}, fickle, in_turn({words(1, 40)}, 40));
  plant("a host that throws", {Ailment::kFailures}, roomy("full"), [](Engine& engine) {
    GenerateOptions asked = greedy(8);
    asked.on_token = [](const TokenEvent&) -> bool { throw std::runtime_error("no"); };
    engine.generate(words(1, 20), asked);
  });
  return all;
}

}  // namespace paddock::test
