// Who is let in: whoever comes next in rank and finds the pages it needs beside those that run.
#include <algorithm>
#include <new>

#include "core/fail.h"
#include "engine/scheduler.h"

namespace paddock {
namespace {

/// How many requests may be let in before one that was there first and does not fit yet.
constexpr int32_t kMaxPassed = 16;
/// A step looks no further once it has met so many requests that do not fit yet.
constexpr int32_t kMaxBlocked = 32;

/// Knows, for answers to one prompt, which stand together in the order of requests, whether one
/// before computes that prompt.
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

}  // namespace

int64_t Scheduler::places_in_use() const {
  auto live = static_cast<int64_t>(sessions_.size());
  for (const Request* request : live_) {
    if (request->session == nullptr) ++live;
  }
  return live;
}

struct Scheduler::Admission {
  int64_t live;           // places that are taken
  bool any;               // whether some request runs
  int64_t in_sessions;    // requests to come that need no place
  int64_t left = 0;       // pages that a newcomer may have
  int32_t blocked = 0;    // requests met so far that do not fit yet
  PromptReader reader{};  // of those that run, up to the one that is looked at
};

void Scheduler::admit_waiting(ScheduledBatch& batch) {
  if (!may_admit()) return;
  Admission now{
      .live = places_in_use(), .any = !live_.empty(), .in_sessions = waiting_in_sessions()};
  // Where all places are taken, nobody who needs one is looked at.
  const auto may_any_come = [&] {
    return now.live < setup_.options.max_sequences || now.in_sessions > 0 || !now.any;
  };
  if (!may_any_come()) return;
  now.left = pages_left();
  for (size_t i = 0; i < requests_.size() && now.blocked < kMaxBlocked && may_any_come(); ++i) {
    ++looked_at_;
    if (!try_admit(i, now, batch)) return;
  }
}

bool Scheduler::may_admit() const {
  // Whoever waits for pages comes before those that would take more of them.
  const bool some_wait = std::any_of(
      live_.begin(), live_.end(), [](const Request* request) { return request->waits_for_pages; });
  return !some_wait && requests_.size() > live_.size();
}

int64_t Scheduler::pages_left() {
  int64_t left = pages_obtainable();
  PromptReader reader;
  for (const Request* request : live_) {
    left -= reader.serves(*request) ? pages_beside(request->sequence)
                                    : pages_due(request->sequence) - pages_followed(*request);
    reader.note(*request);
  }
  return left;
}

bool Scheduler::try_admit(size_t at, Admission& now, ScheduledBatch& batch) {
  Request& request = *requests_[at];
  if (request.finished) return true;
  if (request.running) {
    now.reader.note(request);
    return true;
  }
  const Sequence& sequence = request.sequence;
  const bool needs_place = request.session == nullptr;
  if (!needs_place) --now.in_sessions;
  if (needs_place && now.live >= setup_.options.max_sequences) {
    if (now.any) return true;
    batch.endings.push_back(
        {&request, FinishReason::kError,
         "all sequences of the engine are held by open sessions, so that it would wait for "
         "ever; close one or raise max_sequences"});
    return true;
  }
  const int64_t pages = now.reader.serves(request)
                            ? pages_beside(sequence)
                            : pages_due(sequence) + pages_apart(sequence) - pages_followed(request);
  // What elastic budgets could give up for a newcomer is for the first who waits: whoever comes
  // past him gets in with pages that are left over, or not at all.
  const bool may_share = now.blocked == 0;
  if (now.any && pages > now.left && !(may_share && has_share(request))) {
    ++now.blocked;
    return request.times_passed < kMaxPassed;
  }
  for (size_t before = 0; before < at && now.blocked > 0; ++before) {
    if (!requests_[before]->running) ++requests_[before]->times_passed;
  }
  start(request, batch);
  if (request.running) {
    now.reader.note(request);
    tables_.push_back(sequence.tables());
  }
  if (needs_place) ++now.live;
  now.left -= pages;
  now.any = true;
  return true;
}

void Scheduler::start(Request& request, ScheduledBatch& batch) {
  try {
    request.begin(vocab_size_);
    if (request.sequence.is_open()) park_if_stuck(request.sequence, &request);
    if (!request.sequence.is_open()) request.sequence.open();
    let_in(request);
  } catch (const std::bad_alloc&) {
    batch.endings.push_back({&request, FinishReason::kError, kNoMemory});
  }
}

int64_t Scheduler::pages_due(const Sequence& sequence) const {
  // A block more, or up to the next decision length.
  const EngineSetup& setup = setup_of(sequence);
  const int64_t block = setup.options.kv.block_size;
  const int64_t interval = interval_of(sequence);
  const int64_t ahead = std::max(block, interval - sequence.length() % interval);
  const int64_t positions = std::min<int64_t>(setup.options.context, sequence.length() + ahead);
  if (!sequence.is_open()) {
    const int64_t all = pages_needed(setup, positions);
    return sequence.peak_pages() > 0 ? std::min(all, sequence.peak_pages()) : all;
  }
  return cache_.pages_to_reach(sequence.tables(), positions) - pages_of(sequence);
}

int64_t Scheduler::pages_followed(const Request& request) const {
  const Sequence& sequence = request.sequence;
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
  for (const Request* other : live_) {
    if (most >= full || !goes_before(*other, request)) break;
    if (cache_.shares_blocks(other->sequence.tables(), sequence.rules())) {
      look_at(other->sequence.tokens);
    }
  }
  pins_.for_each([&](SequenceId pin, std::span<const TokenId> text) {
    if (cache_.shares_blocks(pin, sequence.rules())) look_at(text);
  });
  // In layers with a window pages_due() counts what the window holds, whoever computed it.
  return (most - known) * cache_.lasting_pages(sequence.rules());
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
  for (const Request* request : live_) {
    if (request->sequence.is_open()) tables_.push_back(request->sequence.tables());
  }
  pins_.for_each([&](SequenceId pin, std::span<const TokenId>) { tables_.push_back(pin); });
  return cache_.available_pages() + cache_.pages_active() - cache_.pages_listed(tables_);
}

}  // namespace paddock
