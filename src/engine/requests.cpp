// Requests: taken in, checked, told to the host, handed out.
#include <algorithm>
#include <utility>

#include "core/fail.h"
#include "engine/advice.h"
#include "engine/engine_impl.h"

namespace paddock {

void Engine::Impl::check_tokens(std::span<const TokenId> tokens, const char* what) const {
  const int32_t vocab = model->info().vocab_size;
  if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "the {} has no tokens", what);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      fail(ErrorCode::kInvalidArgument, "token {} of the {} is {}; ids go from 0 to {}", i, what,
           tokens[i], vocab - 1);
    }
  }
}

int64_t Engine::Impl::pages_for(const Session* session, RulesId rules, int64_t positions) const {
  const EngineSetup& s = setup.of(rules);
  return session == nullptr || !session->sequence.is_open() || s.policies.is_elastic()
             ? least_pages_needed(s, positions)
             : cache->pages_to_reach(session->sequence.tables(), positions);
}

uint64_t Engine::Impl::pool_limit() const {
  const uint64_t free = backend->available_bytes();
  return free == 0 ? 0 : free + setup.reserved_bytes();
}

std::vector<Proposal> Engine::Impl::proposals(RulesId rules, int64_t positions,
                                              int64_t least) const {
  return propose_for(
      model->data().config, setup, rules,
      {.positions = positions, .least = least, .max_bytes = pool_limit(), .running = true});
}

std::string Engine::Impl::what_is_kept(const Sequence& sequence) const {
  const bool falls = setup.options.kv.pressure == KvPressure::kTrim;
  if (!falls || !sequence.is_kept_up()) return {};
  return fmt::format(
      "what is protected keeps its budget from falling below {} positions, which the KV pool of {} "
      "pages does not hold beside what comes; let go of some, or give the pool more",
      sequence.least_budget(), setup.pool.n_pages);
}

std::vector<Proposal> Engine::Impl::proposals_for(const Sequence& sequence, int64_t positions,
                                                  int64_t least) const {
  std::vector<Proposal> all = proposals(sequence.rules(), positions, least);
  if (!what_is_kept(sequence).empty()) {
    std::erase_if(all, [](const Proposal& proposal) { return !proposal.budget_bytes; });
  }
  return all;
}

void Engine::Impl::check_prompt(const Session* session, RulesId rules, int64_t total,
                                int32_t max_tokens) const {
  const int64_t context = setup.of(rules).longest;
  const int64_t wanted = total + std::max(0, max_tokens);
  if (total > context) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the prompt ends at position {} but the context admits {} positions",
                            total, context),
                proposals(rules, wanted, total + 1));
  }
  const int64_t prompt_pages = pages_for(session, rules, total);
  if (prompt_pages > setup.pool.n_pages) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("the prompt needs {} pages ({} bytes) of KV cache but the pool has {} "
                            "({} bytes)",
                            prompt_pages, prompt_pages * setup.pool.geometry.page_bytes(),
                            setup.pool.n_pages, setup.options.kv.budget_bytes),
                proposals(rules, std::min(wanted, context), total));
  }
}

std::vector<std::unique_ptr<Request>> Engine::Impl::make_answers(std::span<const TokenId> prompt,
                                                                 const GenerateOptions& options,
                                                                 Session* session, RulesId rules) {
  std::vector<std::unique_ptr<Request>> answers(static_cast<size_t>(options.n));
  const auto id_of = [&](int32_t i) { return next_request_ + static_cast<RequestId>(i); };
  try {
    // Their places on the board come first: once there is a request, its session's text has grown.
    for (int32_t i = 0; i < options.n; ++i) board.put(id_of(i), {});
    for (int32_t i = 0; i < options.n; ++i) {
      answers[static_cast<size_t>(i)] = std::make_unique<Request>(next_request_, i, session, rules,
                                                                  prompt, options, *model, *cache);
    }
  } catch (...) {
    for (int32_t i = 0; i < options.n; ++i) board.erase(id_of(i));
    throw;
  }
  for (const auto& answer : answers) {
    answer->shown = status_of(*answer);
    board.update(answer->id, answer->shown);
  }
  return answers;
}

RequestId Engine::Impl::add(std::span<const TokenId> prompt, const GenerateOptions& options,
                            Session* session) {
  const int64_t before = session != nullptr ? session->sequence.length() : 0;
  const bool is_pending = session != nullptr && session->sequence.reached() < before;
  if (!prompt.empty() || !is_pending) check_tokens(prompt, "prompt");
  const int64_t total = before + static_cast<int64_t>(prompt.size());
  const RulesId rules = rules_for(session, options.kv_policy);
  check_prompt(session, rules, total, options.max_tokens);
  check_options(options, model->info().vocab_size);
  if (options.n > 1 && session != nullptr) {
    fail(ErrorCode::kInvalidArgument,
         "n is {}, but a session goes on with one answer; fork_session() makes others of it",
         options.n);
  }
  scheduler->make_room(options.n);
  std::vector<std::unique_ptr<Request>> answers = make_answers(prompt, options, session, rules);
  if (session != nullptr) {
    session->busy = true;
    session->is_new_fork = false;
  }
  if (trace != nullptr) {
    for (const auto& answer : answers) {
      trace->requested({.request = answer->id,
                        .session = answer->sequence.session,
                        .answer = answer->result.answer,
                        .begin = before,
                        .prompt_tokens = answer->prompt_end,
                        .priority = options.priority,
                        .max_tokens = options.max_tokens});
    }
  }
  for (std::unique_ptr<Request>& answer : answers) scheduler->add(std::move(answer));
  book.update([&](EngineStats& s) { s.requests_waiting += options.n; });
  return std::exchange(next_request_, next_request_ + options.n);
}

void Engine::Impl::cancel(std::optional<RequestId> id) {
  if (!id) cancel_feed_ = true;
  scheduler->cancel(id);
}

void Engine::Impl::finish(Request& request, FinishReason reason, std::string_view error) noexcept {
  // It may have ended already: its own callback threw, or the step failed because of another.
  if (request.finished) return;
  try {
    request.text.finish();
  } catch (const std::bad_alloc&) {  // what was held back is lost
  }
  // A host that cancels hears no more.
  request.undelivered = reason == FinishReason::kCancelled ? 0 : request.text.take().size();
  request.result.text = request.text.release();
  request.result.finish_reason = reason;
  if (reason == FinishReason::kContext || reason == FinishReason::kKvFull) {
    const int64_t now = request.sequence.length();
    const auto made = static_cast<int64_t>(request.result.tokens.size());
    try {
      request.result.proposals =
          proposals_for(request.sequence, now - made + request.options.max_tokens, now + 1);
    } catch (...) {  // no memory, or a rule of the host's own that throws when it is tried
      // It ends all the same, without advice.
    }
  }
  try {
    request.result.error = error;
    if (reason == FinishReason::kKvFull && !request.options.lossless) {
      request.result.error = what_is_kept(request.sequence);
    }
  } catch (const std::bad_alloc&) {  // it ends without words
  }
  request.result.trims = std::max<int64_t>(0, request.sequence.trims() - request.trims_before);
  request.finished = true;
  scheduler->hand_over(request);
}

/// Takes no memory. Of the host's only destructors are run, of callbacks, and without a lock.
void Engine::Impl::retire() noexcept {
  scheduler->sweep([this](std::unique_ptr<Request> gone) {
    if (gone->session != nullptr) {
      gone->session->last_used = cache->steps();
      gone->session->busy = false;
    }
    if (trace != nullptr) {
      const GenerateResult& result = gone->result;
      trace->finished({.request = gone->id,
                       .reason = result.finish_reason,
                       .made_tokens = static_cast<int64_t>(result.tokens.size()),
                       .cached_tokens = result.cached_tokens,
                       .recomputed_tokens = result.recomputed_tokens,
                       .preemptions = result.preemptions});
    }
    gone->own = nullptr;
    note_queue(*gone);
    const std::chrono::duration<double> whole = std::chrono::steady_clock::now() - gone->added_at;
    book.update([&](EngineStats& s) {
      ++s.requests_finished[static_cast<size_t>(gone->result.finish_reason)];
      s.request.add(whole.count());
    });
    if (gone->discarded) {
      board.erase(gone->id);
    } else {
      board.update(gone->id, status_of(gone->result));
      finished.insert(std::move(gone->node));
    }
  });
}

void Engine::Impl::drop(RequestId id) {
  for (const auto& request : scheduler->requests()) {
    if (request->id == id) finish(*request, FinishReason::kError);
  }
  retire();
  finished.erase(id);
  board.erase(id);
}

GenerateResult Engine::Impl::generate(std::span<const TokenId> prompt,
                                      const GenerateOptions& options, Session* session) {
  if (options.n > 1) {
    fail(ErrorCode::kInvalidArgument, "n is {}; generate() gives one answer, add() gives several",
         options.n);
  }
  const RequestId id = add(prompt, options, session);
  struct Own {
    RequestId& id;
    ~Own() { id = 0; }
  } own{own_request_ = id};
  try {
    while (!finished.contains(id)) step();
  } catch (...) {
    drop(id);
    throw;
  }
  board.erase(id);
  return std::move(finished.extract(id).mapped());
}

std::optional<RequestId> Engine::Impl::finished_after(RequestId id) const {
  auto at = finished.upper_bound(id);
  if (at != finished.end() && at->first == own_request_) ++at;
  if (at == finished.end()) return std::nullopt;
  return at->first;
}

std::optional<GenerateResult> Engine::Impl::take(RequestId id) {
  if (id == own_request_) return std::nullopt;
  auto node = finished.extract(id);
  if (node.empty()) return std::nullopt;
  board.erase(id);
  return std::move(node.mapped());
}

void Engine::Impl::abandon() {
  abandoned_ = true;
  cancel(std::nullopt);
}

void Engine::Impl::check_abandoned() const {
  if (abandoned_) fail(ErrorCode::kCancelled, "the engine was destroyed inside a callback");
}

void Engine::Impl::deliver_rests() {
  if (!scheduler->has_ended()) return;
  const auto& all = scheduler->requests();
  for (size_t i = 0; i < all.size(); ++i) {  // a callback may add requests
    Request& request = *all[i];
    const size_t n = std::exchange(request.undelivered, 0);
    if (n == 0) continue;
    const std::string_view text = request.result.text;
    try {
      deliver(request, {request.sequence.tokens.back(),
                        text.substr(text.size() - n),
                        0,
                        {},
                        request.result.answer});
    } catch (const std::bad_alloc&) {  // for the words about what it threw
      request.result.finish_reason = FinishReason::kError;
      request.result.error = no_memory();
    }
  }
}

KvRelief Engine::Impl::ask_for_room(const KvShortage& shortage) {
  if (pressure_failures_ > 0) return KvRelief::kNone;
  const Driving::CallOut out(driving);
  try {
    return setup.options.kv.on_pressure(shortage);
  } catch (...) {
    ++pressure_failures_;
    return KvRelief::kNone;
  }
}

void Engine::Impl::deliver_events() {
  const std::function<void(const KvEvent&)>& on_event = setup.options.kv.on_event;
  // What comes of what a handler does waits until those before have been told.
  if (!on_event || delivers_events_) return;
  struct Delivering {
    bool& flag;
    ~Delivering() { flag = false; }
  } delivering{delivers_events_ = true};
  for (std::vector<KvEvent> events;;) {
    try {
      events = cache->take_queued();
    } catch (const std::bad_alloc&) {  // the next time, then: a step must not end half-way
      return;
    }
    if (events.empty()) return;
    for (const KvEvent& event : events) {
      if (hook_failures_ > 0) return;  // it threw once
      const Driving::CallOut out(driving);
      try {
        on_event(event);
      } catch (...) {
        ++hook_failures_;
      }
    }
  }
}

}  // namespace paddock
