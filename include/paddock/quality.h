// What eviction costs: one text under a baseline rule and under others, compared position by
// position; and facts hidden in it, asked for at its end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "paddock/engine.h"
#include "paddock/export.h"

namespace paddock {

struct QualityOptions {
  EngineOptions engine{};  ///< of every engine; engine.kv.policy is the baseline
  /// SPECs to compare with it, as in KvOptions::policy; rules of the host's own among them, by the
  /// names in engine.kv.custom_policies.
  std::vector<std::string> contenders{};
  /// Further contenders, behind those, that differ in more than their rule: a KV type, a block
  /// size, another pool. Options of their engines, of which reuse and trace are not heeded.
  std::vector<EngineOptions> other_engines{};
  /// Positions that one engine runs ahead, from 1; the baseline's logits of so many are kept:
  /// chunk * vocab_size * 12 bytes, however many contenders there are.
  int32_t chunk = 64;
  /// Tokens of the longest text to come, so that a KV budget which cannot hold it under every rule
  /// is refused when the meter is made, as it is when the text comes. 0: unknown.
  int64_t positions = 0;
};

/// One scored token under one rule.
struct PositionQuality {
  double nll = 0;      ///< -log p(token), nats
  double kl = 0;       ///< KL(baseline || this rule) of the prediction, nats; never negative
  bool agrees = true;  ///< the same best token as the baseline (the lowest id among equals)
};

/// How much of the text was there to be seen in one layer.
struct KeptTokens {
  double mean = 0;  ///< positions that a query met, its own included, mean over all queries
  int64_t max = 0;  ///< most positions that one query met, likewise; a rule that decides every N
                    ///< positions keeps up to N more than its budget in between
};

/// One rule over the whole text. Sums run over positions in order, in double.
struct PolicyQuality {
  std::string policy;
  double nll = 0;               ///< mean over the scored tokens, nats
  double perplexity = 0;        ///< exp(nll)
  double kl_mean = 0;           ///< nats
  double kl_max = 0;            ///< nats
  int64_t kl_max_position = 0;  ///< of the token whose prediction drifted furthest; the first one
  double top1_agreement = 1;    ///< share of predictions with the baseline's best token
  KeptTokens kept;              ///< mean of the layers' means, largest of their maxima
  std::vector<KeptTokens> layers;
};

struct QualityReport {
  int64_t tokens = 0;  ///< fed
  int64_t scored = 0;  ///< every token but the first
  PolicyQuality baseline;
  std::vector<PolicyQuality> contenders;  ///< as in QualityOptions, other_engines last
};

/// A part of a conversation: what was said up to `prompt_end`, and an answer to it up to `end`.
struct CompareTurn {
  int64_t prompt_end = 0;
  int64_t end = 0;
};

struct CompareOptions {
  /// The first tokens count as prompt for rules that decide where it ends. 0: nobody said.
  int64_t prompt_tokens = 0;
  /// In place of prompt_tokens: the text is a conversation of these turns, ascending. Chunks end
  /// where a prompt or an answer does, and rules learn of a prompt's end when its turn begins.
  std::vector<CompareTurn> turns{};
  /// Called whenever an engine has done a chunk: which one, by its number in engine(), and the
  /// positions that it has by then. Return false to cancel.
  std::function<bool(size_t rule, int64_t positions)> on_chunk{};
  /// Called for each scored token in order: its position, from 1, and the baseline's figures, then
  /// each contender's. Return false to cancel.
  std::function<bool(int64_t position, std::span<const PositionQuality> rules)> on_position{};
  /// Called whenever an engine has done a chunk, with a fraction from 0 to 1; false cancels.
  std::function<bool(double fraction)> on_progress{};
};

/// Something said once in a text, and asked for at its end.
struct PlantedFact {
  std::string statement;  ///< put into the text as a line of its own
  std::string question;   ///< put after it as the beginning of a line
  std::string answer;     ///< continues the question, leading blank included
  double depth = 0.5;     ///< 0: before the text, 1: right after it
};

/// Most facts that make_facts() makes.
inline constexpr int32_t kMaxFacts = 26;

/// `n` facts such as "The secret number of Alice is 4821.", at depths (i + 1/2) / n; 1 to
/// kMaxFacts. Equal seeds give equal facts. Error kInvalidArgument for another n.
PADDOCK_API std::vector<PlantedFact> make_facts(int32_t n, uint64_t seed = 1);

/// One fact under one rule. The answer is fed, not sampled: if every one of its tokens was the best
/// one, greedy decoding would have said it.
struct FactRecall {
  bool recalled = false;
  double answer_nll = 0;  ///< mean over the answer's tokens, nats
};

struct PolicyRecall {
  std::string policy;
  int32_t recalled = 0;  ///< of those that the baseline recalls
  std::vector<FactRecall> facts;
};

struct RecallReport {
  int64_t tokens = 0;              ///< fed: text, facts, questions and answers
  std::vector<int64_t> positions;  ///< where each statement begins
  PolicyRecall baseline;           ///< .recalled: how many it recalls at all
  std::vector<PolicyRecall> contenders;
};

struct RecallOptions {
  std::function<bool(double fraction)> on_progress{};  ///< as in CompareOptions
};

/// Runs a baseline and its contenders over texts in lockstep: each has an engine of its own over
/// the shared model. Used by one thread at a time; cancel() is safe from any thread.
/// A callback must not compare or recall with its own meter: Error kInvalidArgument.
class PADDOCK_API QualityMeter {
 public:
  /// Makes the engines. Errors as of Engine, naming the rule: kInvalidArgument, kOutOfMemory, ...
  QualityMeter(std::shared_ptr<const Model> model, const QualityOptions& options);
  ~QualityMeter();
  QualityMeter(const QualityMeter&) = delete;
  QualityMeter& operator=(const QualityMeter&) = delete;

  /// One text of at least two tokens. Errors: kInvalidArgument (too short, too long for the
  /// context, an id that is none, prompt_tokens, turns), kCancelled, kOutOfMemory (an engine's pool
  /// is full), kUnsupported or kBadFile (logits are no numbers: see Engine::feed()).
  QualityReport compare(std::span<const TokenId> tokens, const CompareOptions& options = {});

  /// Plants `facts` in `text`, whose tokens may be none, and asks for them in order after it. The
  /// prompt, for rules that decide where it ends, ends before the first question. Errors as of
  /// compare(), and kInvalidArgument for a fact with an empty part or a depth outside [0, 1].
  RecallReport recall(std::span<const TokenId> text, std::span<const PlantedFact> facts,
                      const RecallOptions& options = {});

  /// Ends what runs with Error kCancelled, within a layer of a forward pass; any thread.
  void cancel();

  /// The baseline's engine, then the contenders': for statistics, blocks and events.
  const Engine& engine(size_t index) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Tokens that recall() feeds for these facts beside the text: what the context must hold too.
PADDOCK_API int64_t recall_tokens(const Tokenizer& tokenizer, std::span<const PlantedFact> facts);

}  // namespace paddock
