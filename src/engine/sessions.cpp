// Sessions and raw forward passes.
#include <algorithm>

#include "core/fail.h"
#include "engine/engine_impl.h"

namespace paddock {
namespace {

void check_callback(const std::function<bool(int64_t, std::span<const float>)>& on_logits) {
  if (!on_logits) fail(ErrorCode::kInvalidArgument, "on_logits is null; give a function");
}

void check_prompt_tokens(int64_t prompt_tokens) {
  if (prompt_tokens >= 0) return;
  fail(ErrorCode::kInvalidArgument, "prompt_tokens is {}; it must be 0 or more", prompt_tokens);
}

/// Stops a step that a host feeds: cancel() without a request's number.
class FeedIsCancelled final : public StopCheck {
 public:
  explicit FeedIsCancelled(const std::atomic<bool>& cancelled) : cancelled_(cancelled) {}
  bool should_stop() override { return cancelled_; }

 private:
  const std::atomic<bool>& cancelled_;
};

}  // namespace

Session& Engine::Impl::session(SessionId id) {
  const auto it = sessions.find(id);
  if (it == sessions.end()) fail(ErrorCode::kInvalidArgument, "session {} is not open", id);
  if (it->second->busy) fail(ErrorCode::kInvalidArgument, "session {} is running a request", id);
  return *it->second;
}

void Engine::Impl::check_place() const {
  const int64_t used = scheduler->places_in_use();
  if (used < setup.options.max_sequences) return;
  fail_all_in_use(setup.options.max_sequences);
}

SessionId Engine::Impl::open_session(const SessionOptions& options) {
  const RulesId rules = rules_named(options.kv_policy);
  check_place();
  auto session = std::make_unique<Session>(*cache, rules);
  session->sequence.open();
  session->sequence.session = next_session_;
  sessions.emplace(next_session_, std::move(session));
  return next_session_++;
}

SessionId Engine::Impl::fork_session(SessionId id) {
  const Session& from = session(id);
  if (from.fed) {
    fail(ErrorCode::kInvalidArgument, "session {} is being fed; fork it when feed() has returned",
         id);
  }
  check_place();
  auto fork = std::make_unique<Session>(*cache, from.sequence.rules());
  fork->sequence.copy(from.sequence);
  if (from.sequence.is_open() && from.sequence.computed() == from.sequence.reached()) {
    fork->sequence.open();
    fork->sequence.fork(from.sequence);
    fork->is_new_fork = true;
  }
  fork->last_used = from.last_used;
  fork->sequence.session = next_session_;
  sessions.emplace(next_session_, std::move(fork));
  return next_session_++;
}

void Engine::Impl::close_session(SessionId id) {
  if (session(id).fed) {
    fail(ErrorCode::kInvalidArgument, "session {} is being fed; close it when feed() has returned",
         id);
  }
  sessions.erase(id);
  deliver_events();
  deliver_trace();
}

Pin Engine::Impl::pin(std::span<const TokenId> tokens, const PinOptions& options) {
  check_tokens(tokens, "text");
  const Pin pin = pins->add(tokens, options, scheduler->step(), rules_named(options.kv_policy));
  note_requests();
  return pin;
}

bool Engine::Impl::unpin(PinId id) {
  const bool was_there = pins->remove(id);
  note_requests();
  return was_there;
}

int64_t Engine::Impl::session_length(SessionId id) { return session(id).sequence.length(); }

void Engine::Impl::feed_session(Session& session, std::span<const TokenId> tokens,
                                const std::function<void()>& feed_all) {
  Sequence& sequence = session.sequence;
  const int64_t before = sequence.length();
  session.is_new_fork = false;
  struct Feeding {
    bool& fed;
    ~Feeding() { fed = false; }
  } feeding{session.fed = true};
  sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
  const auto settle = [&] {  // however far it came
    sequence.tokens.resize(static_cast<size_t>(std::max(before, sequence.computed())));
    session.last_used = cache->steps();
  };
  try {
    if (sequence.is_open()) scheduler->park_if_stuck(sequence);
    feed_all();
  } catch (...) {
    settle();
    throw;
  }
  settle();
}

std::span<const float> Engine::Impl::feed(SessionId id, std::span<const TokenId> tokens,
                                          int64_t prompt_tokens) {
  Session& target = session(id);
  check_tokens(tokens, "input");
  check_prompt_tokens(prompt_tokens);
  check_context(target.sequence, tokens.size());
  target.sequence.set_prompt(prompt_tokens);
  cancel_feed_ = false;
  std::span<const float> logits;
  feed_session(target, tokens, [&] {
    reuse_blocks(target.sequence, target.sequence.length() - 1);
    feed_sequence(target.sequence, target.sequence.length(), true,
                  [&](int64_t, const StepResult& step, int32_t) {
                    logits = step.parts[0].logits;
                    return true;
                  });
    if (const auto trouble = judge(logits, target.sequence.computed() - 1)) throw *trouble;
    note_overflows();
  });
  check_abandoned();
  return logits;
}

void Engine::Impl::feed(SessionId id, std::span<const TokenId> tokens, const OnLogits& on_logits,
                        int64_t prompt_tokens) {
  Session& target = session(id);
  check_tokens(tokens, "input");
  check_callback(on_logits);
  check_prompt_tokens(prompt_tokens);
  check_context(target.sequence, tokens.size());
  target.sequence.set_prompt(prompt_tokens);
  cancel_feed_ = false;
  feed_session(target, tokens, [&] { feed_rows(target.sequence, on_logits); });
}

void Engine::Impl::truncate(SessionId id, int64_t length) {
  Session& target = session(id);
  Sequence& sequence = target.sequence;
  if (length < 0 || length > sequence.length()) {
    fail(ErrorCode::kInvalidArgument, "cannot truncate a session of {} positions to {}",
         sequence.length(), length);
  }
  const bool keeps_all = setup.of(sequence.rules()).policies.keeps_all();
  // A fork has only what its origin still had, while a shorter text computed from its beginning
  // would have all that its rule keeps. So where rules drop something it is parked, to be computed
  // again.
  if (target.is_new_fork && sequence.is_open() && !keeps_all) sequence.park();
  target.is_new_fork = false;
  sequence.truncate(length);
  deliver_events();
  deliver_trace();
}

namespace {

PositionRange range_of(int64_t first, int64_t n, int64_t longest) {
  if (first < 0 || n < 1 || n > longest || first > longest - n) {
    fail(ErrorCode::kInvalidArgument,
         "{} positions from {} on are not to be had; first must be 0 or more, n 1 or more, and the "
         "end at most {}, the longest sequence",
         n, first, longest);
  }
  return {first, first + n};
}

}  // namespace

void Engine::Impl::protect(SessionId id, int64_t first, int64_t n) {
  Sequence& sequence = session(id).sequence;
  sequence.protect(range_of(first, n, setup.of(sequence.rules()).longest));
  deliver_trace();
}

void Engine::Impl::unprotect(SessionId id, int64_t first, int64_t n) {
  Sequence& sequence = session(id).sequence;
  sequence.unprotect(range_of(first, n, setup.of(sequence.rules()).longest));
  deliver_trace();
}

void Engine::Impl::forward(std::span<const TokenId> tokens, const OnLogits& on_logits,
                           int64_t prompt_tokens) {
  check_tokens(tokens, "input");
  check_callback(on_logits);
  if (prompt_tokens < 0 || prompt_tokens > static_cast<int64_t>(tokens.size())) {
    fail(ErrorCode::kInvalidArgument, "prompt_tokens is {}; it must be from 0 to the input's {}",
         prompt_tokens, tokens.size());
  }
  Sequence sequence(*cache);
  check_context(sequence, tokens.size());
  sequence.tokens.assign(tokens.begin(), tokens.end());
  sequence.set_prompt(prompt_tokens);
  cancel_feed_ = false;
  feed_rows(sequence, on_logits);
}

bool Engine::Impl::hand_out(const OnLogits& on_logits, int64_t position,
                            std::span<const float> logits) {
  const Driving::CallOut out(driving);
  return on_logits(position, logits);
}

void Engine::Impl::reuse_blocks(Sequence& sequence, int64_t end) {
  if (!sequence.is_open()) sequence.open();
  cache->match_prefix(sequence.tables(), sequence.tokens,
                      std::min(end, scheduler->sure_length(sequence)),
                      sequence.reached() == sequence.computed());
}

void Engine::Impl::restore(Sequence& sequence) {
  if (sequence.computed() < sequence.reached()) reuse_blocks(sequence, sequence.reached());
  feed_sequence(sequence, sequence.reached(), false,
                [](int64_t, const StepResult&, int32_t) { return true; });
}

void Engine::Impl::feed_rows(Sequence& sequence, const OnLogits& on_logits) {
  restore(sequence);
  feed_sequence(sequence, sequence.length(), false,
                [&](int64_t first, const StepResult&, int32_t n) {
                  for (int32_t begin = 0; begin < n; begin += kLogitTile) {
                    const int32_t n_rows = std::min(kLogitTile, n - begin);
                    step_runner->compute_rows(begin, n_rows);
                    for (int32_t i = 0; i < n_rows; ++i) {
                      const int64_t position = first + begin + i;
                      if (const auto trouble = judge(step_runner->row(i), position)) throw *trouble;
                      if (!hand_out(on_logits, position, step_runner->row(i))) return false;
                      check_abandoned();
                    }
                  }
                  note_overflows();
                  return true;
                });
}

void Engine::Impl::check_context(const Sequence& sequence, size_t more) const {
  const int64_t start = sequence.reached();
  const int64_t end = sequence.length() + static_cast<int64_t>(more);
  const int64_t longest = setup.of(sequence.rules()).longest;
  if (end <= longest) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} tokens after position {} exceed the context of {} positions",
                          end - start, start, longest),
              proposals(sequence.rules(), end, end));
}

void Engine::Impl::feed_sequence(
    Sequence& sequence, int64_t end, bool wants_logits,
    const std::function<bool(int64_t first, const StepResult& step, int32_t n)>& on_step) {
  if (!sequence.is_open()) sequence.open();
  FeedIsCancelled stop(cancel_feed_);
  for (int64_t first = sequence.computed(); first < end; first = sequence.computed()) {
    const auto wanted = static_cast<int32_t>(std::min(end - first, sequence.max_next()));
    const int32_t n = scheduler->reserve(sequence, wanted);
    if (n == 0) {
      const std::string kept = what_is_kept(sequence);
      throw Error(ErrorCode::kOutOfMemory,
                  fmt::format("the KV pool of {} pages is full at position {}{}{}",
                              setup.pool.n_pages, first, kept.empty() ? "" : ": ", kept),
                  proposals_for(sequence, end, end));
    }
    const BatchPart part{
        .sequence = &sequence, .n_tokens = n, .wants_logits = wants_logits && first + n == end};
    const StepResult step = run_step({&part, 1}, stop);
    if (!step.completed) fail(ErrorCode::kCancelled, "cancelled at position {}", first);
    deliver_events();
    deliver_trace();
    check_abandoned();
    if (!on_step(first, step, n)) return;
  }
}

}  // namespace paddock
