// The engine: runs requests over one model and one paged KV cache.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/engine_stats.h"
#include "paddock/error.h"
#include "paddock/export.h"
#include "paddock/kv_cache.h"
#include "paddock/model.h"
#include "paddock/sampling.h"
#include "paddock/stats.h"

namespace paddock {

enum class Precision {
  kFast,       ///< whatever is quickest within the documented accuracy
  kReference,  ///< float32 throughout, every sum in one fixed order; for proofs
};

/// Most sequences of an engine (EngineOptions::max_sequences).
inline constexpr int32_t kMaxSequences = 4096;

/// The CPU kernels that this build has and this processor runs: "portable", "avx2", "avx512" (with
/// VNNI), "avx512_bf16", "amx" (with its products of bfloat16), those after faster on most
/// processors. Whoever asks, or makes an engine, asks the system for the tiles of AMX, once in a
/// process.
PADDOCK_API std::vector<std::string> isa_names();

struct PADDOCK_API EngineOptions {
  int32_t threads = 0;          ///< 0: the physical cores this process may use
  std::string device = "auto";  ///< "auto", "cpu" or "cuda[:N]"
  Precision precision = Precision::kFast;
  /// Longest sequence admitted, in positions. 0: the model's context if any layer sees everything,
  /// else no limit but 2^31 - 1. Under elastic rules that let survivors look contiguous ("sink:4",
  /// "lru@compact") a sequence may be longer: no layer comes to hold more of it than this.
  int64_t context = 0;
  int32_t batch_size = 512;   ///< most tokens in one forward pass, or max_sequences if that is more
  int32_t max_sequences = 1;  ///< sessions open and requests running at once, to kMaxSequences;
                              ///< others wait
  int32_t max_queued = 0;     ///< most requests that may wait; 0: any number
  /// Most prompt tokens in a step in which others decode, so that their next tokens come soon; each
  /// counts 1, and more the more it sees (docs/scheduling.md). 0: 8 on a CPU, 256 on CUDA devices.
  int32_t mixed_prefill = 0;
  KvOptions kv{};
  /// Forces CPU kernels: one of isa_names(); empty: the last of them, the best.
  std::string isa{};

  /// Checks what no model has a say in, as an engine does: ranges, and settings that exclude each
  /// other. Error kInvalidArgument naming the option, its value and the range.
  void validate() const;
};

/// `options` with what a proposal sets.
PADDOCK_API EngineOptions with_proposal(EngineOptions options, const Proposal& proposal);

struct TokenLogprob {
  TokenId id;
  double logprob;  ///< natural log of the model's own probability, before sampling options
};

/// One generated token, as streamed. Valid during the callback only.
struct TokenEvent {
  TokenId id;
  std::string_view text;  ///< text that became final with it (may be empty): whole UTF-8
                          ///< characters, never a part of a stop string
  double logprob = 0;     ///< if logprobs were asked for
  std::span<const TokenLogprob> top;  ///< the n best, likewise
  int32_t answer = 0;                 ///< of GenerateOptions::n, from 0
};

/// Most alternatives that GenerateOptions::logprobs may ask for.
inline constexpr int32_t kMaxLogprobs = 256;

/// Most answers that GenerateOptions::n may ask for.
inline constexpr int32_t kMaxAnswers = 10000;

/// GenerateOptions::priority lies between this and its negative.
inline constexpr int32_t kMaxPriority = 1000;

struct GenerateOptions {
  int32_t max_tokens = 128;
  /// Larger ones are let in first, and have to give their pages up last. 64 steps of waiting count
  /// as one level.
  int32_t priority = 0;
  /// Under an elastic rule: the budget of its sequence does not fall on its account; where pages
  /// run short others give theirs, or it is parked. One that is alone may then end with kKvFull.
  bool lossless = false;
  /// The SPEC that its sequence goes by: KvOptions::policy, or one of other_policies. Empty: the
  /// former, or of a session that which it was opened with, beside which no other is taken.
  std::string kv_policy{};
  SamplingOptions sampling{};
  /// Answers to one prompt, 1 to kMaxAnswers, of add() alone. The prompt is computed once for those
  /// that find a place (EngineOptions::max_sequences). Each is a request of its own, and what one
  /// with the seed sampling.seed + i would be, i counting from 0: on the CPU and with
  /// Precision::kReference to the bit, elsewhere as far as a request's tokens do not depend on its
  /// company. Callbacks are copied for each.
  int32_t n = 1;
  /// Strings (UTF-8) that end the text and are not part of it; a special token's text stands for
  /// the token. Without a tokenizer there is no text, and none of them is ever found.
  std::vector<std::string> stop{};
  bool ignore_stop_tokens = false;  ///< run on through the model's stop tokens
  bool add_bos = true;              ///< for text prompts: as the tokenizer's own settings say
  bool parse_special = false;       ///< for text prompts: special-token text becomes tokens
  /// n: log-probabilities of the chosen and the n best tokens; 0 to kMaxLogprobs.
  std::optional<int32_t> logprobs{};
  /// Called for each token, and once more, with the last one's id, for text that was held back
  /// until the request ended. Return false to cancel: then nothing more comes. Runs on the thread
  /// that drives the engine; what it throws ends this request alone.
  std::function<bool(const TokenEvent&)> on_token{};
  /// Acts at the next step. Inside a step, also a prefill, only where all requests in it are to
  /// end: nobody else's work is thrown away. There the CPU notices it before each layer; another
  /// device may notice it only when the step is done.
  std::optional<std::chrono::steady_clock::time_point> deadline{};
  /// Once stop is requested, from any thread, the request ends as by cancel(): when and where a
  /// deadline acts. A request whose stop was requested before it was added never runs.
  std::stop_token stop_token{};
  /// Called for each token with the text so far (all that the sequence holds: prompt, earlier
  /// turns, what was made) and the model's logits [vocab_size] of what comes next, which it may
  /// change: bias, penalties and sampling act on what it leaves. -infinity rules a token out. Log-
  /// probabilities stay the model's own. Runs on the thread that drives the engine; the logits come
  /// to the host for it. What it throws, and a logit that it leaves NaN or +infinity, ends this
  /// request alone, with kError.
  std::function<void(std::span<const TokenId> tokens, std::span<float> logits)> logits_processor{};
};

struct Timings {
  double prefill_seconds = 0;
  double decode_seconds = 0;
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;
  double queue_seconds = 0;        ///< from add() to being let in for the first time
  double first_token_seconds = 0;  ///< from add() to the first token; 0: there is none
  LatencyHistogram token_gaps;     ///< from each token to the next one
};

struct GenerateResult {
  std::string text;
  std::vector<TokenId> tokens;        ///< generated ids, the stop token left out
  std::optional<TokenId> stop_token;  ///< the one that was sampled, if that ended it
  int32_t answer = 0;                 ///< of GenerateOptions::n, from 0
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  ///< of them, taken from blocks kept for reuse, or from another answer
                              ///< to the same prompt; the others were computed
  PrefixMiss miss;            ///< why not more of them
  FinishReason finish_reason = FinishReason::kError;
  std::string error;                ///< with kError: what went wrong; with kKvFull: that protected
                                    ///< positions are the reason, if they are, and what helps
  std::vector<Proposal> proposals;  ///< with kContext and kKvFull: what lets it go on to the end of
                                    ///< max_tokens or, where nothing does, beyond this point
  std::vector<TokenLogprob> logprobs;                   ///< one per token, if asked for
  std::vector<std::vector<TokenLogprob>> top_logprobs;  ///< likewise
  Timings timings;
  int32_t preemptions = 0;  ///< times that it was parked, its pages being needed by others:
  std::vector<KvPreemption> preempted;  ///< for whom, and what that took;
  int64_t recomputed_tokens = 0;  ///< tokens that were computed again for it, for that or because
                                  ///< its session had been parked: part of Timings::prefill_tokens
  std::vector<KvBudgetChange> budget_changes;  ///< of its sequence, under an elastic rule
  int64_t trims = 0;  ///< blocks that rules dropped for their scores, in all layers together
};

using RequestId = int64_t;
using SessionId = int64_t;
using PinId = int64_t;

struct PinOptions {
  /// Of pins that have to give way the lowest goes first, of those the oldest. From -kMaxPriority
  /// to kMaxPriority.
  int32_t priority = 0;
  int64_t steps = 0;  ///< of step() and generate(), how many it holds; 0: for ever
  /// Of what is kept for texts under this SPEC: as GenerateOptions::kv_policy.
  std::string kv_policy{};
};
struct SessionOptions {
  /// The SPEC that its sequence goes by: KvOptions::policy, which empty stands for, or one of
  /// other_policies.
  std::string kv_policy{};
};
struct Pin {
  PinId id = 0;
  int64_t tokens = 0;  ///< of the text, that it holds: whole blocks, from its first token on
};

enum class RequestState {
  kUnknown,   ///< never added, or its result was taken or discarded
  kQueued,    ///< waits to be let in
  kRunning,   ///< steps bring its tokens
  kParked,    ///< ran, had to give its pages to others, and waits to go on
  kFinished,  ///< take() has its result
};

struct RequestStatus {
  RequestState state = RequestState::kUnknown;
  int64_t prompt_tokens = 0;    ///< as GenerateResult::prompt_tokens
  int64_t computed_tokens = 0;  ///< of them, in the cache; of a finished one, that were computed
  int64_t made_tokens = 0;      ///< of its answer

  bool operator==(const RequestStatus&) const = default;
};

/// Runs requests. Used by one thread at a time; cancel(), status(), options(), the model and the
/// statistics are safe from any thread at any time. Inside its callbacks (on_token,
/// logits_processor, on_event, on_pressure, on_logits, the trace's sink) add(), take(),
/// finished_after(), discard(), pin(), unpin(), set_kv_budget(), check_kv_policy(), max_positions()
/// and what opens, forks, closes or measures sessions may be called, too. A call that is not
/// allowed there throws Error kInvalidArgument and changes nothing; docs/hosts.md has the table. An
/// engine destroyed inside a callback ends the call under way as if cancelled.
///
/// All memory (pool, activations, tables, staging) is reserved by the constructor. Where memory
/// runs out all the same, what asked for it ends with Error kOutOfMemory (a request of step() with
/// FinishReason::kError), and the engine goes on.
class PADDOCK_API Engine {
 public:
  /// Errors: kInvalidArgument (an option, with its value and range), kOutOfMemory (needed and
  /// available bytes, or threads), kDevice.
  explicit Engine(std::shared_ptr<const Model> model, const EngineOptions& options = {});
  /// An engine of parts put together beforehand; hosts have no use for it. For the library's own
  /// tests, which put in a device of theirs (src/engine/engine_impl.h, make_engine_impl).
  struct Impl;
  explicit Engine(std::shared_ptr<Impl> impl);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // ---- one request at a time
  GenerateResult generate(std::string_view prompt, const GenerateOptions& options = {});
  GenerateResult generate(std::span<const TokenId> prompt, const GenerateOptions& options = {});

  // ---- many at once: add, then step until idle
  /// Queues a request, at any time. Error kInvalidArgument for an empty or too long prompt, unknown
  /// ids, bad options; kOutOfMemory if the prompt can never fit the pool, or EngineOptions::
  /// max_queued requests wait. It is let in when what all running ones need now fits the pool; when
  /// pages run short later, idle sessions and then the last of the requests are parked: they
  /// lose their pages, wait, and go on where they were once their tokens have been computed again.
  /// docs/scheduling.md. Where GenerateOptions::n asks for several answers this is the first one's
  /// number; the others' are the next ones.
  RequestId add(std::span<const TokenId> prompt, const GenerateOptions& options = {});
  /// Likewise, continuing a session as generate(session, ...) does; until it has finished no other
  /// call may use the session.
  RequestId add(SessionId session, std::span<const TokenId> tokens,
                const GenerateOptions& options = {});
  /// One forward pass over whatever is ready. False if there was nothing to do.
  bool step();
  /// The result of a finished request, once.
  std::optional<GenerateResult> take(RequestId id);
  /// The first request with a larger number whose result take() has; nothing if there is none.
  std::optional<RequestId> finished_after(RequestId id) const;
  /// How far a request is. Any thread, any time: as of the last step or, inside a callback, now.
  RequestStatus status(RequestId id) const;
  /// Forgets a request: the result of a finished one; one that is not finished is cancelled, and
  /// its result never appears. The one of a generate() under way is only cancelled.
  void discard(RequestId id);
  /// Ends a request or, with no argument, all that are queued or running and the feed() or
  /// forward() under way, nothing that begins later: when and where a deadline acts.
  void cancel(RequestId id);
  void cancel();

  // ---- a conversation: a sequence that outlives one request. It knows its text: 4 bytes a token.
  /// Error kInvalidArgument where no sequence is left, or for a SPEC that the engine does not have.
  SessionId open_session(const SessionOptions& options = {});
  /// A session of its own with the same text and rules, that goes on as the other would: it lists
  /// the same blocks, and who writes first to the last one copies it. Of one that is parked the
  /// text is computed again when the new one is first used. Error kInvalidArgument where no
  /// sequence is left, or while a request or a feed() uses it.
  SessionId fork_session(SessionId session);
  /// Error kInvalidArgument, and no change, while a request or a feed() uses it.
  void close_session(SessionId session);
  /// Feeds only `tokens` after what the session holds, then generates. A sampled stop token stays
  /// pending and is fed first with the next call, so the next turn continues exactly there: a text
  /// made in several calls has the tokens of one. Penalties see all that the session holds; stop
  /// strings are looked for in the text of one call.
  GenerateResult generate(SessionId session, std::span<const TokenId> tokens,
                          const GenerateOptions& options = {});
  int64_t session_length(SessionId session) const;  ///< positions held, pending token included
  /// Takes the session back to its first `length` positions (to regenerate an answer, to reject
  /// drafted tokens), exactly as if the later ones had never been fed. Error kInvalidArgument, and
  /// no change, where a rule has dropped what that length would see, or scores by what the later
  /// positions did. An elastic rule does not forbid that: what the later positions gave others in
  /// attention stays counted.
  void truncate(SessionId session, int64_t length);

  /// Has rules never choose blocks of the session that hold any of `n` positions from `first` on,
  /// there already or to come, until unprotect(), or truncate() to before them. They count in the
  /// budget; what has left stays away. A fork begins with the same. Parked or not: it is decided
  /// again as it was. Pages that kept blocks have, and windows of others, are none of its business.
  /// Error kInvalidArgument, and no change, with layer and rule, where one goes by position alone
  /// (a window, sinks and a window), shares its budget by need, or has a budget that is, or of an
  /// elastic rule has been, too small to choose from beside what is protected. Elastic budgets then
  /// fall less far: a request that lacks pages all the same ends with FinishReason::kKvFull, and
  /// GenerateResult::error says why.
  void protect(SessionId session, int64_t first, int64_t n);
  /// Lets rules choose them again; positions that were not protected are none the worse.
  void unprotect(SessionId session, int64_t first, int64_t n);

  // ---- prefixes that stay
  /// Holds on to the blocks of a text's beginning that are kept for reuse now (a system prompt that
  /// was computed once), so that they are not reclaimed before they are let go of. Pins give way
  /// last: where a request that is alone with the rest of the pool could not go on otherwise, and
  /// with set_kv_policy(), even where that finds no memory. Takes no place of
  /// EngineOptions::max_sequences. Error kInvalidArgument if no block of the text is kept.
  Pin pin(std::span<const TokenId> tokens, const PinOptions& options = {});
  /// Lets go of it; its blocks stay like others that nobody lists. False if it had gone already.
  bool unpin(PinId pin);

  // ---- raw forward passes
  /// Appends `tokens` to a session without sampling; returns the logits [vocab_size] after the last
  /// one, valid until the next call of the engine. Fed in chunks of the batch size. If it throws
  /// (kCancelled, or kOutOfMemory from a full pool) the chunks fed before stay, and so does what
  /// was pending and not fed: session_length() has grown by the number of `tokens` that are in.
  /// Logits that are not all finite are never handed out, by any call: Error kUnsupported where
  /// keys or values did not fit KvOptions::type, else kBadFile; the message says where and what
  /// helps. A request ends with finish_reason kError and that message.
  /// `prompt_tokens`: so many positions of the session, counted from its start, are prompt for
  /// rules that decide where it ends, if it has not come so far before.
  std::span<const float> feed(SessionId session, std::span<const TokenId> tokens,
                              int64_t prompt_tokens = 0);
  /// Likewise, but with the logits after each token: on_logits(position, row of vocab_size floats)
  /// in order; return false to stop, after the chunk at hand.
  void feed(SessionId session, std::span<const TokenId> tokens,
            const std::function<bool(int64_t position, std::span<const float> logits)>& on_logits,
            int64_t prompt_tokens = 0);
  /// Logits after each of `tokens`, fed in chunks of the batch size as one sequence of its own:
  /// on_logits(position, row of vocab_size floats) in order; return false to stop. The first
  /// `prompt_tokens` count as prompt for rules that decide where it ends.
  void forward(
      std::span<const TokenId> tokens,
      const std::function<bool(int64_t position, std::span<const float> logits)>& on_logits,
      int64_t prompt_tokens = 0);

  // ---- what the cache does
  /// Other rules in place of KvOptions::policy from now on, beside the same other_policies: built
  /// in or of KvOptions::custom_policies; counters go on, and a context that was left at its
  /// default becomes theirs where the pool admits it. Error kInvalidArgument for a rule that is
  /// wrong or while requests or sessions are open, kOutOfMemory if the pool cannot hold it.
  void set_kv_policy(std::string_view spec);
  void set_kv_policy(const std::shared_ptr<const EvictionPolicy>& policy);
  /// Another budget for the KV pool from now on, in place of KvOptions::budget_bytes; at most what
  /// was reserved, KvOptions::max_budget_bytes. Raised, it lets in who waits; what budgets of
  /// elastic rules have come to within a request stays. Lowered, who has too much gives way, at
  /// once or, inside a callback, at the next step, in the order of docs/scheduling.md: kept blocks,
  /// idle sessions, then budgets of elastic rules at their decision lengths, or else requests are
  /// parked; one that alone outgrows it ends with FinishReason::kKvFull. Error kOutOfMemory, and no
  /// change, for more than was reserved, or less than the rules work with.
  void set_kv_budget(uint64_t bytes);
  /// Throws what set_kv_policy(spec), or feeding a sequence of `positions` after it, would: so that
  /// a host knows before it closes its sessions. Changes nothing; sessions may be open.
  void check_kv_policy(std::string_view spec, int64_t positions = 0) const;
  /// The longest sequence that context and pool admit under the engine's own rules, if it is alone;
  /// one more token may be chosen after them, as the newest needs no place in the cache yet.
  int64_t max_positions() const;
  /// Likewise, of what a session may become from what it holds: pages that its rule has taken are
  /// there for what comes.
  int64_t max_positions(SessionId session) const;

  KvStats kv_stats() const;   ///< any thread, any time
  EngineStats stats() const;  ///< any thread, any time; as of the last step or add()
  /// Resident blocks of a layer, all sequences, in position order; any thread.
  std::vector<KvBlock> kv_blocks(int32_t layer) const;
  /// Removals numbered `from` and later, as far back as the ring reaches; any thread.
  std::vector<KvEvent> kv_events(uint64_t from = 0) const;
  /// Changes of elastic rules' budgets numbered `from` and later, likewise: as many as the ring
  /// holds removals; any thread.
  std::vector<KvBudgetChange> kv_budget_changes(int64_t from = 0) const;
  /// Requests and idle sessions that were parked, numbered `from` and later, likewise.
  std::vector<KvPreemption> kv_preemptions(int64_t from = 0) const;
  /// Throws Error kInternal if a conservation law is broken; any thread.
  void check_integrity() const;
  EngineOptions options() const;  ///< as resolved: threads, context, budget filled in; any thread
  const Model& model() const;
  /// Reserved by this engine: weights it repacked, pool, activations. Any thread.
  uint64_t memory_bytes() const;

 private:
  std::shared_ptr<Impl> impl_;  // a call under way holds it, too
};

}  // namespace paddock
