// A request on its way through the engine, and a session between requests.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "engine/sampler.h"
#include "engine/sequence.h"
#include "engine/text_stream.h"
#include "paddock/engine.h"

namespace paddock {

/// A sequence that outlives its requests. What the cache does not hold yet of it is pending.
struct Session {
  Session(CacheManager& cache, RulesId rules) : sequence(cache, rules) {}
  Sequence sequence;
  bool busy = false;         // a request is using it
  bool fed = false;          // feed() is under way: callbacks may look at it, not close it
  bool is_new_fork = false;  // it lists what another one had, and has not gone on since
  int64_t last_used = 0;     // the cache's clock when a request or a feed() last ended
};

using Sessions = std::map<SessionId, std::unique_ptr<Session>>;

/// Notes that somebody's stop was requested, on whichever thread that was.
struct NoteStop {
  std::atomic<bool>* noted;
  void operator()() const noexcept { *noted = true; }
};

struct Request {
  /// Its prompt continues the session's text or, without a session, begins a text of its own, which
  /// goes by `rules`. If it throws the session is as before. `answer`: which of GenerateOptions::n
  /// it is, from 0; `first`: the id of answer 0.
  Request(RequestId first, int32_t answer, Session* session, RulesId rules,
          std::span<const TokenId> prompt, const GenerateOptions& options, const Model& model,
          CacheManager& cache);

  RequestId id;
  RequestId first_answer;  // to the same prompt
  GenerateOptions options;
  Session* session;               // whose text it continues, if any
  std::unique_ptr<Sequence> own;  // else
  Sequence& sequence;             // the one or the other
  int64_t prompt_end;             // position after the prompt's last token
  int64_t rank = 0;               // the smaller goes first; equal ones by their ids
  int32_t times_passed = 0;       // by requests behind it that were let in before it
  std::chrono::steady_clock::time_point added_at = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_token_at{};  // after the first one
  bool queue_noted = false;                               // how long it waited has been counted
  int64_t trims_before = 0;                               // of its session's sequence
  bool prefix_asked = false;                              // its prompt has been looked for
  bool miss_asked = false;                                // why its text was not kept
  bool running = false;                                   // let in; else it waits, perhaps parked
  bool waits_for_pages = false;                           // until others' budgets have fallen
  std::optional<Sampler> sampler;                         // once it has begun
  TextStream text;
  /// Made beforehand, so that it becomes an entry of Engine::Impl::finished without an allocation.
  std::map<RequestId, GenerateResult>::node_type node;
  GenerateResult& result;  // in the node
  std::atomic<bool> cancelled{false};
  bool finished = false;
  // Of the step at hand: the answer that computes the prompt for this one; whether this one
  // computes it for another.
  Request* awaits = nullptr;
  bool awaited = false;
  bool discarded = false;                                   // nobody wants its result
  std::optional<std::stop_callback<NoteStop>> stop_note{};  // while the scheduler has it
  RequestStatus shown{};                                    // on the board
  std::vector<float> processed;  // [vocab_size] logits for logits_processor, from its first call on
  size_t undelivered = 0;        // bytes at the end of result.text that on_token has not had yet

  /// Takes the memory that it needs to run: one that waits costs what its tokens cost.
  void begin(int32_t vocab_size);
  /// Makes room for one more token, so that taking it cannot fail half-way.
  void make_room();
  /// Whether its deadline has passed.
  bool overdue() const;
  /// Whether the host has cancelled it, by whatever means.
  bool is_cancelled() const { return cancelled || options.stop_token.stop_requested(); }
  /// Whether it need not go on with the step that it is in; from any thread.
  bool wants_to_stop() const { return is_cancelled() || overdue(); }
  /// Whether it ran, and waits to go on.
  bool is_parked() const { return !running && result.preemptions > 0; }
  /// Whether its prompt has never been in the cache to its end.
  bool reads_prompt() const { return sequence.reached() < prompt_end; }
  /// Whether nothing of it has ever been in the cache.
  bool is_new() const { return sequence.reached() == 0; }
  /// Whether its next step brings one token, which was chosen.
  bool decoding() const {
    return sequence.computed() >= prompt_end && sequence.length() - sequence.computed() == 1;
  }
};

/// In the order of rank.
inline bool goes_before(const Request& a, const Request& b) {
  return a.rank != b.rank ? a.rank < b.rank : a.id < b.id;
}

/// How far it is.
RequestStatus status_of(const Request& request);
/// Of one that has ended.
RequestStatus status_of(const GenerateResult& result);

/// Error kInvalidArgument, with the option, its value and its range.
void check_options(const GenerateOptions& options, int32_t vocab_size);

}  // namespace paddock
