#include "engine/scheduler.h"

#include <algorithm>

#include "core/fail.h"
#include "core/search.h"

namespace paddock {
namespace {

/// Steps of waiting that count as much as one level of priority.
constexpr int64_t kStepsPerLevel = 64;
/// In place of a number of tokens: it waits for blocks that another one computes.
constexpr int64_t kFollows = -1;
/// Sums of work are exact to less than this.
constexpr double kRounding = 1e-6;

}  // namespace

Scheduler::Scheduler(CacheManager& cache, const EngineSetup& setup, const Sessions& sessions,
                     Pins& pins, int32_t vocab_size,
                     std::function<KvRelief(const KvShortage&)> on_pressure)
    : cache_(cache),
      setup_(setup),
      sessions_(sessions),
      pins_(pins),
      on_pressure_(std::move(on_pressure)),
      vocab_size_(vocab_size) {
  const auto n_sequences = static_cast<size_t>(setup.options.max_sequences);
  requests_.reserve(n_sequences + 1);
  live_.reserve(n_sequences);
  let_out_.reserve(2 * n_sequences);  // one may be let out, come in again and be let out
  running_.reserve(n_sequences);
  token_shares_.reserve(n_sequences);
  tables_.reserve(n_sequences);
}

void Scheduler::make_room(int32_t n) {
  const int32_t max = setup_.options.max_queued;
  if (max > 0 && n > max) {
    fail(ErrorCode::kInvalidArgument,
         "n is {}, but max_queued admits {} requests that wait; ask for fewer answers, or raise it",
         n, max);
  }
  const auto waits = [](const auto& request) { return !request->running && !request->finished; };
  if (max > 0 && std::count_if(requests_.begin(), requests_.end(), waits) + n > max) {
    fail(ErrorCode::kOutOfMemory,
         "as many requests wait as max_queued admits, {}; call step() until one of them runs, or "
         "raise it",
         max);
  }
  const std::lock_guard lock(mutex_);
  const size_t size = requests_.size() + static_cast<size_t>(n);
  if (size > requests_.capacity()) requests_.reserve(2 * size);
}

void Scheduler::add(std::unique_ptr<Request> request) noexcept {
  const GenerateOptions& options = request->options;
  request->rank = step_ - int64_t{options.priority} * kStepsPerLevel;
  request->stop_note.emplace(options.stop_token, NoteStop{&stop_noted_});
  if (options.deadline) {
    next_deadline_ = std::min(next_deadline_.value_or(*options.deadline), *options.deadline);
  }
  const auto by_rank = [](const auto& a, const auto& b) { return goes_before(*a, *b); };
  const std::lock_guard lock(mutex_);
  requests_.insert(std::upper_bound(requests_.begin(), requests_.end(), request, by_rank),
                   std::move(request));
}

void Scheduler::cancel(std::optional<RequestId> id) {
  const std::lock_guard lock(mutex_);
  for (const auto& request : requests_) {
    if (request != nullptr && (!id || request->id == *id)) request->cancelled = true;
  }
  stop_noted_ = true;
}

bool Scheduler::may_have_to_end() {
  const bool is_noted = stop_noted_.exchange(false);
  if (!is_noted && !next_deadline_) return false;
  const auto now = std::chrono::steady_clock::now();
  if (!is_noted && now < *next_deadline_) return false;
  next_deadline_.reset();
  for (const auto& request : requests()) {
    const auto& its = request->options.deadline;
    if (its && *its > now) next_deadline_ = std::min(next_deadline_.value_or(*its), *its);
  }
  return true;
}

void Scheduler::let_in(Request& request) noexcept {
  n_parked_ -= request.is_parked() ? 1 : 0;
  request.running = true;
  const auto by_rank = [](const Request* a, const Request* b) { return goes_before(*a, *b); };
  live_.insert(std::upper_bound(live_.begin(), live_.end(), &request, by_rank), &request);
}

void Scheduler::let_out(Request& request) noexcept {
  std::erase(live_, &request);
  request.running = request.waits_for_pages = false;
  request.awaits = nullptr;
  request.awaited = false;
  n_parked_ += request.is_parked() ? 1 : 0;
  let_out_.push_back(&request);
}

void Scheduler::forget(const Request& request) noexcept {
  n_parked_ -= request.is_parked() ? 1 : 0;
  std::erase(live_, &request);
  std::erase(let_out_, &request);
}

int64_t Scheduler::waiting_in_sessions() const {
  const auto n = std::count_if(sessions_.begin(), sessions_.end(),
                               [](const auto& session) { return session.second->busy; });
  return n - std::count_if(live_.begin(), live_.end(),
                           [](const Request* request) { return request->session != nullptr; });
}

ScheduledBatch Scheduler::next(ScheduledBatch memory) {
  ScheduledBatch batch = std::move(memory);
  batch.parts.clear();
  batch.endings.clear();
  batch.parts.reserve(static_cast<size_t>(setup_.options.max_sequences));
  batch.endings.reserve(requests_.size());
  ++step_;
  host_waits_ = false;
  keep_to_budget();
  admit_waiting(batch);
  running_.assign(live_.begin(), live_.end());  // what has ended has left by now
  for (Request* request : running_) {
    request->awaits = nullptr;
    request->awaited = false;
  }
  find_readers();
  for (Request* request : running_) {
    if (!request->decoding() && request->awaits == nullptr) reuse_blocks(*request);
  }
  share_tokens();
  for (size_t i = 0; i < running_.size(); ++i) {
    if (token_shares_[i] > 0 && running_[i]->running) place(*running_[i], token_shares_[i], batch);
  }
  // Nothing runs and nothing ends: all wait for pages that the others have. The last gives way.
  const bool is_stuck = batch.parts.empty() && batch.endings.empty() && !host_waits_;
  if (is_stuck && !running_.empty()) park_last(running_[0], running_[0]);
  return batch;
}

void Scheduler::reuse_blocks(Request& request) {
  Sequence& sequence = request.sequence;
  const int64_t reached = sequence.reached();
  if (!request.prefix_asked && cache_.keeps_blocks(sequence.rules())) {
    request.prefix_asked = true;
    prefix_queries_ += request.result.prompt_tokens;
  }
  // Listing a kept page takes it from those that can be had. Those owed to others are left alone.
  const int64_t most = cache_.is_elastic() ? pages_unclaimed(sequence, true) : kUnlimited;
  const int64_t end = std::min(sequence.length() - 1, sure_length(sequence, &request));
  cache_.list_prefix(sequence.tables(), sequence.tokens, end, sequence.computed() == reached, most);
  const int64_t found = std::max<int64_t>(0, sequence.computed() - reached);
  request.result.cached_tokens += found;
  prefix_hits_ += found;
}

void Scheduler::share_tokens() {
  token_shares_.assign(running_.size(), 1);
  int64_t n_prompts = 0, n_decoding = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->decoding()) {
      ++n_decoding;
    } else if (running_[i]->awaits != nullptr || follows(i)) {
      token_shares_[i] = kFollows;
    } else {
      token_shares_[i] = 0;
      ++n_prompts;
    }
  }
  if (n_prompts == 0) return;
  const int64_t room = max_step_tokens(setup_.options) - n_decoding;
  // While others decode, a share is measured in work and not in tokens: late tokens of a long
  // prompt cost more, and those who decode wait for the whole step.
  const bool mixed = n_decoding > 0;
  const auto cost = [&](const Sequence& sequence, int64_t n) {
    return mixed ? work(sequence, sequence.computed(), n) : static_cast<double>(n);
  };
  const auto most =
      static_cast<double>(mixed ? std::min<int64_t>(room, setup_.options.mixed_prefill) : room);
  double budget = most;
  // Prompts get equal shares. One that needs less than its share gets what it needs, and the others
  // share the rest anew, until nobody needs less.
  int64_t unsettled = n_prompts;
  for (bool settled = true; settled && unsettled > 0;) {
    settled = false;
    const double share = budget / static_cast<double>(unsettled);
    for (size_t i = 0; i < running_.size(); ++i) {
      if (token_shares_[i] != 0) continue;
      const Sequence& sequence = running_[i]->sequence;
      const int64_t rest =
          std::min<int64_t>(sequence.length() - sequence.computed(), setup_of(sequence).chunk);
      const double all = cost(sequence, rest);
      if (all > share) continue;
      token_shares_[i] = rest;
      budget -= all;
      --unsettled;
      settled = true;
    }
  }
  for (size_t i = 0; i < running_.size(); ++i) {
    if (token_shares_[i] != 0) continue;
    const double share = budget / static_cast<double>(unsettled);
    token_shares_[i] = mixed ? affordable(running_[i]->sequence, share)
                             : std::max<int64_t>(1, static_cast<int64_t>(share));
  }
  if (mixed) take_turns(most);
}

void Scheduler::take_turns(double budget) {
  const size_t n = running_.size();
  bool any = false;
  for (size_t k = 0; k < n; ++k) {
    const size_t i = (static_cast<size_t>(step_) + k) % n;
    if (running_[i]->decoding() || token_shares_[i] == kFollows) continue;
    const Sequence& sequence = running_[i]->sequence;
    budget -= work(sequence, sequence.computed(), token_shares_[i]);
    if (any && budget < -kRounding) token_shares_[i] = 0;
    any = true;
  }
}

bool Scheduler::follows(size_t i) const {
  const Sequence& sequence = running_[i]->sequence;
  if (!cache_.keeps_blocks(sequence.rules())) return false;
  const int64_t computed = sequence.computed();
  const int64_t block = setup_.options.kv.block_size;
  const int64_t end = (computed / block + 1) * block;
  if (end >= sequence.length()) return false;  // the last token runs in any case
  return std::any_of(
      running_.begin(), running_.begin() + static_cast<int64_t>(i), [&](const Request* other) {
        const std::vector<TokenId>& its = other->sequence.tokens;
        const int64_t its_computed = other->sequence.computed();
        return other->awaits == nullptr &&
               cache_.shares_blocks(other->sequence.tables(), sequence.rules()) &&
               its_computed >= computed && its_computed < end && other->sequence.length() >= end &&
               std::equal(its.begin(), its.begin() + end, sequence.tokens.begin());
      });
}

double Scheduler::work(const Sequence& sequence, int64_t first, int64_t n) const {
  const PolicyMap& policies = setup_of(sequence).policies;
  const double middle = static_cast<double>(first) + static_cast<double>(n) / 2;
  double seen = 0;
  for (int32_t layer = 0; layer < policies.size(); ++layer) {
    const auto max = static_cast<double>(policies.layer(layer).max_resident(1));
    seen += std::min(middle, max);
  }
  seen /= policies.size();
  return static_cast<double>(n) * (1 + seen / setup_.positions_per_token);
}

int64_t Scheduler::affordable(const Sequence& sequence, double budget) const {
  return largest(1, setup_of(sequence).chunk, [&](int64_t tokens) {
    return work(sequence, sequence.computed(), tokens) <= budget;
  });
}

void Scheduler::place(Request& request, int64_t n, ScheduledBatch& batch) {
  Sequence& sequence = request.sequence;
  const int64_t left = sequence.length() - sequence.computed();
  // What others have computed is listed by now. Why the rest has to be computed is asked before
  // anything of it was computed and, where nothing was missing, again when it has been parked.
  if (!request.miss_asked) {
    request.miss_asked = true;
    request.result.miss = cache_.ask_missing(sequence.tables(), sequence.tokens,
                                             sequence.length() - 1, sequence.reached());
  }
  const auto wanted = static_cast<int32_t>(std::min({n, left, sequence.max_next()}));
  const int32_t got = reserve(sequence, wanted, &request);
  request.waits_for_pages = got <= 0 && cache_.is_elastic();
  if (got > 0) {
    const auto again = std::clamp<int64_t>(sequence.reached() - sequence.computed(), 0, got);
    batch.parts.push_back(
        {&sequence, &request, got, static_cast<int32_t>(again), request.decoding(), got == left});
    return;
  }
  host_waits_ |= got == kWaits;
  if (got == kWaits) return;
  if (cache_.is_elastic() && room_in_context(sequence) <= 0) {
    batch.endings.push_back({&request, FinishReason::kContext, ""});
    return;
  }
  // There is no page for it, and nobody behind it could give way: it keeps what it has and waits
  // for those before it, if there are any.
  if (is_alone(&request)) batch.endings.push_back({&request, FinishReason::kKvFull, ""});
}

}  // namespace paddock
