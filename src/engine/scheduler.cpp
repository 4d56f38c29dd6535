#include "engine/scheduler.h"

#include <algorithm>
#include <new>

#include "core/fail.h"
#include "core/search.h"

namespace paddock {
namespace {

/// Steps of waiting that count as much as one level of priority.
constexpr int64_t kStepsPerLevel = 64;
/// Requests that may be let in before one that was there first and does not fit yet.
constexpr int32_t kMaxPassed = 16;
/// In place of a number of tokens: it waits for blocks that another one computes.
constexpr int64_t kFollows = -1;
/// Sums of work are exact to less than this.
constexpr double kRounding = 1e-6;
/// Requests that do not fit yet which a step looks at.
constexpr int32_t kMaxBlocked = 32;

/// Meets requests in their order, in which answers to one prompt stand together.
class PromptReader {
 public:
  /// Whether one that was noted computes the prompt for this one.
  bool serves(const Request& request) const {
    return first_answer_ == request.first_answer && request.is_new();
  }
  /// It runs.
  void note(const Request& request) {
    if (request.reads_prompt()) first_answer_ = request.first_answer;
  }

 private:
  RequestId first_answer_ = 0;
};

bool goes_before(const std::unique_ptr<Request>& a, const std::unique_ptr<Request>& b) {
  return a->rank != b->rank ? a->rank < b->rank : a->id < b->id;
}

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
  running_.reserve(n_sequences);
  shares_.reserve(n_sequences);
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
  request->rank = step_ - int64_t{request->options.priority} * kStepsPerLevel;
  const std::lock_guard lock(mutex_);
  requests_.insert(std::upper_bound(requests_.begin(), requests_.end(), request, goes_before),
                   std::move(request));
}

void Scheduler::cancel(std::optional<RequestId> id) {
  const std::lock_guard lock(mutex_);
  for (const auto& request : requests_) {
    if (request != nullptr && (!id || request->id == *id)) request->cancelled = true;
  }
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
  running_.clear();
  for (const auto& request : requests_) {
    request->awaits = nullptr;
    request->awaited = false;
    if (request->running && !request->finished) running_.push_back(request.get());
  }
  find_readers();
  for (Request* request : running_) {
    if (!request->decoding() && request->awaits == nullptr) list_kept(*request);
  }
  share_tokens();
  for (size_t i = 0; i < running_.size(); ++i) {
    if (shares_[i] > 0 && running_[i]->running) place(*running_[i], shares_[i], batch);
  }
  // Where all wait for one another the last one gives way.
  const bool is_stuck = batch.parts.empty() && batch.endings.empty() && !host_waits_;
  if (is_stuck && !running_.empty()) park_last(running_[0]);
  return batch;
}

// ---- who is let in

void Scheduler::admit_waiting(ScheduledBatch& batch) {
  auto live = static_cast<int32_t>(sessions_.size());
  bool any = false, waiting = false;
  for (const auto& request : requests_) {
    if (request->finished) continue;
    (request->running ? any : waiting) = true;
    if (request->running && request->session == nullptr) ++live;
  }
  // Whoever waits for pages comes before those that would take more of them.
  const bool is_short = std::any_of(requests_.begin(), requests_.end(), [](const auto& request) {
    return request->running && !request->finished && request->waits_for_pages;
  });
  if (!waiting || is_short) return;
  int64_t left = pages_obtainable();
  PromptReader reader;
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Request& request = *requests_[i];
    if (!request.running || request.finished) continue;
    left -= reader.serves(request) ? pages_beside(request.sequence)
                                   : pages_due(request.sequence) - pages_followed(i);
    reader.note(request);
  }
  reader = {};
  int32_t blocked = 0;
  for (auto at = requests_.begin(); at != requests_.end() && blocked < kMaxBlocked; ++at) {
    Request& request = **at;
    if (request.running && !request.finished) reader.note(request);
    if (request.running || request.finished) continue;
    const Sequence& sequence = request.sequence;
    const bool needs_place = request.session == nullptr;
    if (needs_place && live >= setup_.options.max_sequences) {
      if (any) continue;
      batch.endings.push_back(
          {&request, FinishReason::kError,
           "all sequences of the engine are held by open sessions; raise max_sequences"});
      continue;
    }
    const auto place = static_cast<size_t>(at - requests_.begin());
    const int64_t pages = reader.serves(request)
                              ? pages_beside(sequence)
                              : pages_due(sequence) + pages_apart(sequence) - pages_followed(place);
    if (any && pages > left && (blocked > 0 || !has_share(request))) {
      if (request.times_passed >= kMaxPassed) return;
      ++blocked;
      continue;
    }
    for (auto before = requests_.begin(); before != at && blocked > 0; ++before) {
      if (!(*before)->running) ++(*before)->times_passed;
    }
    start(request, batch);
    if (request.running) {
      reader.note(request);
      tables_.push_back(sequence.tables());
    }
    if (needs_place) ++live;
    left -= pages;
    any = true;
  }
}

void Scheduler::start(Request& request, ScheduledBatch& batch) {
  try {
    request.begin(vocab_size_);
    if (!request.sequence.is_open()) request.sequence.open();
    request.running = true;
  } catch (const std::bad_alloc&) {
    batch.endings.push_back({&request, FinishReason::kError, kNoMemory});
  }
}

int64_t Scheduler::pages_due(const Sequence& sequence) const {
  // A block more, or up to the next decision length.
  const EngineSetup& setup = setup_of(sequence);
  const int64_t block = setup.options.kv.block_size;
  const int64_t interval = setup.policies.interval();
  const int64_t ahead =
      interval == 0 ? block : std::max(block, interval - sequence.length() % interval);
  const int64_t positions = std::min<int64_t>(setup.options.context, sequence.length() + ahead);
  if (!sequence.is_open()) {
    const int64_t all = pages_needed(setup, positions);
    return sequence.peak_pages() > 0 ? std::min(all, sequence.peak_pages()) : all;
  }
  return cache_.pages_to_reach(sequence.tables(), positions) - pages_of(sequence);
}

int64_t Scheduler::pages_followed(size_t at) const {
  const Sequence& sequence = requests_[at]->sequence;
  if (!cache_.keeps_blocks(sequence.rules())) return 0;
  const int64_t block = setup_.options.kv.block_size;
  const int64_t known = sequence.computed() / block;
  const int64_t full = (sequence.length() - 1) / block;  // the last token runs in any case
  int64_t most = known;
  const auto look_at = [&](std::span<const TokenId> text) {
    const auto end =
        std::mismatch(sequence.tokens.begin(), sequence.tokens.end(), text.begin(), text.end())
            .first;
    most = std::max(most, std::min((end - sequence.tokens.begin()) / block, full));
  };
  for (size_t i = 0; i < at && most < full; ++i) {
    const Request& other = *requests_[i];
    if (other.running && !other.finished &&
        cache_.shares_blocks(other.sequence.tables(), sequence.rules())) {
      look_at(other.sequence.tokens);
    }
  }
  pins_.for_each([&](SequenceId pin, std::span<const TokenId> text) {
    if (cache_.shares_blocks(pin, sequence.rules())) look_at(text);
  });
  // What windows see of them is bounded anyway.
  int64_t layers = 0;
  const PolicyMap& policies = setup_of(sequence).policies;
  for (int32_t layer = 0; layer < policies.size(); ++layer) {
    layers += policies.layer(layer).visibility.window == kUnlimited ? 1 : 0;
  }
  return (most - known) * layers;
}

int64_t Scheduler::pages_apart(const Sequence& sequence) {
  if (!sequence.is_open()) return 0;
  const int64_t others = cache_.pages_listed(tables_);
  tables_.push_back(sequence.tables());
  const int64_t all = cache_.pages_listed(tables_);
  tables_.pop_back();
  return all - others;
}

int64_t Scheduler::pages_obtainable() {
  tables_.clear();
  for (const auto& request : requests_) {
    if (request->running && request->sequence.is_open()) {
      tables_.push_back(request->sequence.tables());
    }
  }
  pins_.for_each([&](SequenceId pin, std::span<const TokenId>) { tables_.push_back(pin); });
  return cache_.available_pages() + cache_.pages_active() - cache_.pages_listed(tables_);
}

// ---- what a step brings

void Scheduler::list_kept(Request& request) {
  Sequence& sequence = request.sequence;
  const int64_t reached = sequence.reached();
  // What others have been promised is not listed.
  const int64_t most = cache_.is_elastic() ? pages_unclaimed(sequence, true) : kUnlimited;
  cache_.list_prefix(sequence.tables(), sequence.tokens, sequence.length() - 1,
                     sequence.computed() == reached, most);
  request.result.cached_tokens += std::max<int64_t>(0, sequence.computed() - reached);
}

void Scheduler::share_tokens() {
  shares_.assign(running_.size(), 1);
  int64_t n_prompts = 0, n_decoding = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->decoding()) {
      ++n_decoding;
    } else if (running_[i]->awaits != nullptr || follows(i)) {
      shares_[i] = kFollows;
    } else {
      shares_[i] = 0;
      ++n_prompts;
    }
  }
  if (n_prompts == 0) return;
  const int64_t room = max_step_tokens(setup_.options) - n_decoding;
  // While others decode, work is counted, so that their next tokens do not wait for long.
  const bool mixed = n_decoding > 0;
  const auto cost = [&](const Sequence& sequence, int64_t n) {
    return mixed ? work(sequence, sequence.computed(), n) : static_cast<double>(n);
  };
  const auto most =
      static_cast<double>(mixed ? std::min<int64_t>(room, setup_.options.mixed_prefill) : room);
  double budget = most;
  // Equal shares; what a short prompt leaves of its own is shared by the others.
  int64_t unsettled = n_prompts;
  for (bool settled = true; settled && unsettled > 0;) {
    settled = false;
    const double share = budget / static_cast<double>(unsettled);
    for (size_t i = 0; i < running_.size(); ++i) {
      if (shares_[i] != 0) continue;
      const Sequence& sequence = running_[i]->sequence;
      const int64_t rest =
          std::min<int64_t>(sequence.length() - sequence.computed(), setup_of(sequence).chunk);
      const double all = cost(sequence, rest);
      if (all > share) continue;
      shares_[i] = rest;
      budget -= all;
      --unsettled;
      settled = true;
    }
  }
  for (size_t i = 0; i < running_.size(); ++i) {
    if (shares_[i] != 0) continue;
    const double share = budget / static_cast<double>(unsettled);
    shares_[i] = mixed ? affordable(running_[i]->sequence, share)
                       : std::max<int64_t>(1, static_cast<int64_t>(share));
  }
  if (mixed) take_turns(most);
}

void Scheduler::take_turns(double budget) {
  const size_t n = running_.size();
  bool any = false;
  for (size_t k = 0; k < n; ++k) {
    const size_t i = (static_cast<size_t>(step_) + k) % n;
    if (running_[i]->decoding() || shares_[i] == kFollows) continue;
    const Sequence& sequence = running_[i]->sequence;
    budget -= work(sequence, sequence.computed(), shares_[i]);
    if (any && budget < -kRounding) shares_[i] = 0;
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
  // What others have computed is listed by now: why is the rest to be computed? Of a text of its
  // own, and of what is new.
  const bool has_own_text = request.prompt_end == request.result.prompt_tokens;
  if (has_own_text && !request.miss_asked && sequence.computed() == sequence.reached()) {
    request.miss_asked = true;
    request.result.miss =
        cache_.ask_missing(sequence.tables(), sequence.tokens, sequence.length() - 1);
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
  // Those before it have all pages: it keeps what it has, and waits for theirs.
  if (is_alone(&request)) batch.endings.push_back({&request, FinishReason::kKvFull, ""});
}

}  // namespace paddock
