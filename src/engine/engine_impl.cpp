// What one step of the engine is: admit, plan, run, commit, sample.
#include "engine/engine_impl.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/fail.h"
#include "engine/advice.h"

namespace paddock {
namespace {

using Clock = std::chrono::steady_clock;

/// The n most likely tokens, best first.
std::vector<TokenLogprob> top_logprobs(const LogSoftmax& normalizer, std::span<const float> logits,
                                       int32_t n) {
  std::vector<TokenLogprob> top(n);
  for (size_t i = 0; i < logits.size() && n > 0; ++i) {
    // Insertion into a short sorted list: larger first, lower id first among equals.
    const double value = normalizer.logprob(logits[i]);
    if (static_cast<int32_t>(i) >= n && value <= top.back().logprob) continue;
    int32_t at = std::min(static_cast<int32_t>(i), n - 1);
    for (; at > 0 && value > top[at - 1].logprob; --at) top[at] = top[at - 1];
    top[at] = {static_cast<TokenId>(i), value};
  }
  return top;
}

/// What is said of a request that got no memory; nothing, where there is none for that either.
std::string no_memory() noexcept {
  try {
    return kNoMemory;
  } catch (const std::bad_alloc&) {
    return {};
  }
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

// ---- requests
// ------------------------------------------------------------------------------------

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

int64_t Engine::Impl::pages_for(const Session* session, int64_t positions) const {
  return session == nullptr ? pages_needed(setup, positions)
                            : cache->pages_to_reach(session->sequence, positions);
}

uint64_t Engine::Impl::pool_limit() const {
  const uint64_t free = backend->available_bytes();
  return free == 0 ? 0 : free + setup.options.kv.budget_bytes;
}

std::vector<Proposal> Engine::Impl::proposals(int64_t positions, int64_t least) const {
  return propose(
      model->data().config, setup,
      {.positions = positions, .least = least, .most_bytes = pool_limit(), .running = true});
}

RequestId Engine::Impl::add(std::span<const TokenId> prompt, const GenerateOptions& options,
                            Session* session) {
  std::span<const TokenId> before;
  if (session != nullptr) before = session->tokens;
  const int64_t held = session != nullptr ? cache->length(session->sequence) : 0;
  const bool is_pending = held < static_cast<int64_t>(before.size());
  if (!prompt.empty() || !is_pending) check_tokens(prompt, "prompt");
  const auto total = static_cast<int64_t>(before.size() + prompt.size());
  const int64_t context = setup.options.context;
  const int64_t wanted = total + std::max(0, options.max_tokens);
  if (total > context) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the prompt ends at position {} but the context admits {} positions",
                            total, context),
                proposals(wanted, total + 1));
  }
  const int64_t prompt_pages = pages_for(session, total);
  if (prompt_pages > setup.n_pages) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("the prompt needs {} pages ({} bytes) of KV cache but the pool has {} "
                            "({} bytes)",
                            prompt_pages, prompt_pages * setup.geometry.page_bytes(), setup.n_pages,
                            setup.options.kv.budget_bytes),
                proposals(std::min(wanted, context), total));
  }
  auto request = std::make_unique<Request>(next_request_, before, prompt, static_cast<size_t>(held),
                                           options, *model);
  {
    const std::lock_guard lock(requests_mutex_);
    if (requests.size() == requests.capacity()) requests.reserve(2 * requests.size() + 1);
  }
  request->session = session;
  request->claimed_pages =
      pages_for(session, std::min<int64_t>(context, total + options.max_tokens));
  if (session != nullptr) {
    request->sequence = session->sequence;
    session->busy = true;
  }
  const std::lock_guard lock(requests_mutex_);
  requests.push_back(std::move(request));
  return next_request_++;
}

bool Engine::Impl::try_admit(Request& request) {
  // A request is let in when what all admitted ones may come to need fits the pool, so that none of
  // them can starve another. Alone it is always let in, and may end as "kv_full".
  int64_t claimed = request.claimed_pages;
  bool others = false;
  int32_t live = static_cast<int32_t>(sessions.size());
  for (const auto& [id, session] : sessions) {
    if (!session->busy) claimed += session->claimed_pages;
  }
  for (const auto& other : requests) {
    if (!other->admitted) continue;
    others = true;
    claimed += other->claimed_pages;
    if (other->session == nullptr) ++live;
  }
  if (others && claimed > setup.n_pages) return false;
  if (request.session == nullptr) {
    if (live >= setup.options.max_sequences) {
      if (others) return false;
      finish(request, FinishReason::kError,
             "all sequences of the engine are held by open sessions; raise max_sequences");
      return true;
    }
    request.sequence = cache->open();
  }
  cache->set_prompt(*request.sequence, static_cast<int64_t>(request.prompt_end));
  request.admitted = true;
  return true;
}

bool Engine::Impl::overdue(const Request& request) const {
  return request.options.deadline && Clock::now() >= *request.options.deadline;
}

void Engine::Impl::cancel(std::optional<RequestId> id) {
  if (!id) cancel_feed_ = true;
  const std::lock_guard lock(requests_mutex_);
  for (const auto& request : requests) {
    if (request != nullptr && (!id || request->id == *id)) request->cancelled = true;
  }
}

bool Engine::Impl::should_stop() {
  if (stepping_.empty()) return cancel_feed_;
  return std::any_of(stepping_.begin(), stepping_.end(), [&](const Request* request) {
    return request->cancelled || overdue(*request);
  });
}

void Engine::Impl::finish(Request& request, FinishReason reason, std::string error) noexcept {
  try {
    request.text.finish();
  } catch (const std::bad_alloc&) {  // what was held back is lost
  }
  // A host that cancels hears no more.
  request.undelivered = reason == FinishReason::kCancelled ? 0 : request.text.take().size();
  request.result.text = request.text.release();
  request.result.finish_reason = reason;
  if (reason == FinishReason::kContext || reason == FinishReason::kKvFull) {
    const auto now = static_cast<int64_t>(request.input.size());
    const auto made = static_cast<int64_t>(request.result.tokens.size());
    try {
      request.result.proposals = proposals(now - made + request.options.max_tokens, now + 1);
    } catch (...) {  // no memory, or a rule of the host's own that throws when it is tried
      // It ends all the same, without advice.
    }
  }
  request.result.error = std::move(error);
  request.finished = true;
}

/// Takes no memory. Of the host's only destructors are run, of callbacks, and without the lock.
void Engine::Impl::retire() noexcept {
  for (auto& request : requests) {
    if (!request->finished) continue;
    if (request->session != nullptr) {
      Session& session = *request->session;
      session.tokens = std::move(request->input);
      session.claimed_pages = pages_for(&session, cache->length(session.sequence));
      session.busy = false;
    } else if (request->sequence) {
      cache->close(*request->sequence);
    }
    finished.insert(std::move(request->node));
    std::unique_ptr<Request> gone;
    const std::lock_guard lock(requests_mutex_);
    gone.swap(request);
    // `lock` goes before `gone`.
  }
  const std::lock_guard lock(requests_mutex_);
  std::erase(requests, nullptr);
}

void Engine::Impl::drop(RequestId id) {
  for (const auto& request : requests) {
    if (request->id == id) finish(*request, FinishReason::kError);
  }
  retire();
  finished.erase(id);
}

GenerateResult Engine::Impl::generate(std::span<const TokenId> prompt,
                                      const GenerateOptions& options, Session* session) {
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
  return std::move(finished.extract(id).mapped());
}

std::optional<GenerateResult> Engine::Impl::take(RequestId id) {
  if (id == own_request_) return std::nullopt;
  auto node = finished.extract(id);
  if (node.empty()) return std::nullopt;
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
  for (size_t i = 0; i < requests.size(); ++i) {  // a callback may add requests
    Request& request = *requests[i];
    const size_t n = std::exchange(request.undelivered, 0);
    if (n == 0) continue;
    const std::string_view text = request.result.text;
    try {
      deliver(request, {request.input.back(), text.substr(text.size() - n), 0, {}});
    } catch (const std::bad_alloc&) {  // for the words about what it threw
      request.result.finish_reason = FinishReason::kError;
      request.result.error = no_memory();
    }
  }
}

void Engine::Impl::deliver_events() {
  const std::function<void(const KvEvent&)>& on_event = setup.options.kv.on_event;
  if (!on_event) return;
  std::vector<KvEvent> events;
  try {
    events = cache->take_queued();
  } catch (const std::bad_alloc&) {  // the next time, then: a step must not end half-way
    return;
  }
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

// ---- one step
// ------------------------------------------------------------------------------------

bool Engine::Impl::step() {
  if (requests.empty()) return false;
  struct Stepping {  // should_stop() must not look at requests of a step that threw
    std::vector<Request*>& list;
    ~Stepping() { list.clear(); }
  } stepping{stepping_};
  for (const auto& request : requests) {
    if (request->cancelled) {
      finish(*request, FinishReason::kCancelled);
    } else if (overdue(*request)) {
      finish(*request, FinishReason::kDeadline);
    }
  }
  for (const auto& request : requests) {
    if (!request->admitted && !request->finished && !try_admit(*request)) break;
  }
  plan_step();
  if (!stepping_.empty()) run_plan();
  stepping_.clear();
  deliver_rests();
  retire();
  deliver_events();
  return true;
}

void Engine::Impl::plan_step() {
  stepping_.clear();
  planner->clear();
  int32_t room = std::max(setup.options.batch_size, setup.options.max_sequences);
  for (const bool decoding : {true, false}) {
    for (const auto& request : requests) {
      if (!request->admitted || request->finished || request->decoding() != decoding) continue;
      room -= plan_tokens(*request, std::min(room, setup.chunk));
      if (room == 0) return;
    }
  }
}

int32_t Engine::Impl::plan_tokens(Request& request, int32_t most) {
  const auto room =
      static_cast<size_t>(std::min<int64_t>(most, cache->most_next(*request.sequence)));
  const auto n = static_cast<int32_t>(std::min(request.unfed(), room));
  if (!cache->reserve(*request.sequence, n)) {
    finish(request, FinishReason::kKvFull);
    return 0;
  }
  const auto fresh = std::span(request.input).subspan(request.fed, n);
  const int32_t first = planner->add(*request.sequence, fresh);
  request.planned = n;
  request.last_row = fresh.size() == request.unfed() ? first + n - 1 : -1;
  stepping_.push_back(&request);
  return n;
}

/// The forward pass and the logits that requests wait for. False, with nothing changed, if it was
/// stopped; likewise where it throws.
bool Engine::Impl::forward_plan() {
  logit_rows_.clear();
  for (const Request* request : stepping_) {
    if (request->last_row >= 0) logit_rows_.push_back(request->last_row);
  }
  const auto roll_back = [this] {
    for (const Request* request : stepping_) cache->rollback(*request->sequence);
  };
  try {
    if (!llama->run(planner->build(), this)) {
      roll_back();
      return false;
    }
    if (!logit_rows_.empty()) {
      llama->compute_logits(logit_rows_);
      choose();
    } else if (planner->measures()) {
      backend->ops().wait();
    }
  } catch (...) {
    roll_back();
    throw;
  }
  return true;
}

void Engine::Impl::choose() {
  chosen_.assign(logit_rows_.size(), -1);
  bool on_device = backend->ops().samples();
  for (const Request* r : stepping_) {
    if (r->last_row >= 0) on_device &= !r->sampler.adjusts() && !r->options.logprobs;
  }
  if (on_device) {
    sample_rows_.clear();
    for (Request* r : stepping_) {
      if (r->last_row >= 0) sample_rows_.push_back(r->sampler.next_row());
    }
    const std::span<const int32_t> tokens = llama->sample(sample_rows_);
    std::copy(tokens.begin(), tokens.end(), chosen_.begin());
  }
  // Where a logit is not finite the host says which.
  if (std::count(chosen_.begin(), chosen_.end(), -1) > 0) llama->fetch_logits();
}

void Engine::Impl::run_plan() {
  const Clock::time_point start = Clock::now();
  if (!forward_plan()) return;  // whoever asked to stop is ended by the next step; the others go on
  planner->report(*cache);
  for (const Request* request : stepping_) cache->commit(*request->sequence);
  cache->tick();
  const double seconds = seconds_since(start);
  deliver_events();

  int32_t row = 0;
  for (Request* request : stepping_) {
    Timings& timings = request->result.timings;
    (request->decoding() ? timings.decode_seconds : timings.prefill_seconds) += seconds;
    (request->decoding() ? timings.decode_tokens : timings.prefill_tokens) += request->planned;
    request->fed += request->planned;
    if (request->last_row < 0) continue;
    try {
      accept(*request, row++);
    } catch (const std::bad_alloc&) {  // its own trouble
      finish(*request, FinishReason::kError, no_memory());
    }
  }
  note_overflows();
}

void Engine::Impl::accept(Request& request, int32_t row) {
  GenerateResult& result = request.result;
  if (request.options.max_tokens == 0) return finish(request, FinishReason::kLength);
  TokenId id = chosen_[row];
  std::span<const float> logits;
  if (id < 0) {
    logits = llama->logits_row(row);
    const auto position = static_cast<int64_t>(request.input.size()) - 1;
    if (const auto trouble = judge(logits, position)) {
      return finish(request, FinishReason::kError, trouble->what());
    }
    id = request.sampler.choose(logits);
    if (id < 0) return finish(request, FinishReason::kError, request.sampler.why_none());
  }
  request.make_room();

  const std::vector<TokenId>& stops = model->stop_tokens();
  if (!request.options.ignore_stop_tokens && std::binary_search(stops.begin(), stops.end(), id)) {
    request.sampler.observe(id);
    request.input.push_back(id);
    result.stop_token = id;
    return finish(request, FinishReason::kStop);
  }

  TokenEvent event{id, {}, 0, {}};
  std::vector<TokenLogprob> top;
  if (request.options.logprobs) {
    const LogSoftmax normalizer(logits);
    top = top_logprobs(normalizer, logits, *request.options.logprobs);
    event.logprob = normalizer.logprob(logits[id]);
  }
  request.text.push(id);
  // From here on nothing fails: the token is in the answer and in the sequence, or in neither.
  request.sampler.observe(id);
  request.input.push_back(id);
  result.tokens.push_back(id);
  if (request.options.logprobs) {
    result.logprobs.push_back({id, event.logprob});
    event.top = result.top_logprobs.emplace_back(std::move(top));
  }
  std::optional<FinishReason> reason;
  if (request.text.stopped()) {
    reason = FinishReason::kStop;
  } else if (static_cast<int64_t>(result.tokens.size()) >= request.options.max_tokens) {
    reason = FinishReason::kLength;
  } else if (static_cast<int64_t>(request.input.size()) >= setup.options.context) {
    reason = FinishReason::kContext;
  }
  if (reason) request.text.finish();
  event.text = request.text.take();
  if (!deliver(request, event) && !reason) reason = FinishReason::kCancelled;
  if (reason && !request.finished) finish(request, *reason);
}

bool Engine::Impl::deliver(Request& request, const TokenEvent& event) {
  if (!request.options.on_token) return true;
  const Driving::CallOut out(driving);
  const auto broken = [&](std::string why) {
    if (!request.finished) finish(request, FinishReason::kError);
    request.undelivered = 0;
    request.result.finish_reason = FinishReason::kError;
    request.result.error = std::move(why);
  };
  try {
    return request.options.on_token(event);
  } catch (const std::exception& e) {
    broken(fmt::format("on_token threw: {}", e.what()));
  } catch (...) {
    broken("on_token threw something that is no std::exception");
  }
  return false;
}

}  // namespace paddock
