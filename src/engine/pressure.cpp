// Elastic rules under pressure: who is owed pages, and what is done where they are short.
//
// Elastic rules decide at lengths that are multiples of an interval: decision lengths. A sequence
// asks for pages when it stands at one, for all up to the next. From then on it is sure of them:
// what a sequence has yet to take on its way counts as taken when others ask. So it keeps
// everything as long as pages can be had at its decision lengths.
//
// Where they cannot, budgets fall: how far, and whose, is in levels.cpp.
//
// A budget can only fall at a decision length. If sequences above the level are not there yet,
// whoever asks waits for them, a step or more.
//
// A sequence under rules without an elastic layer gives nothing and asks by the block: it takes
// part as one whose interval is a block, so that nothing is owed to it between two.
#include <algorithm>
#include <utility>

#include "core/checked.h"
#include "core/search.h"
#include "engine/scheduler.h"

namespace paddock {
namespace {

int64_t next_multiple(int64_t n, int64_t of) { return (n / of + 1) * of; }
int64_t up_to_multiple(int64_t n, int64_t of) {
  return static_cast<int64_t>(round_up(static_cast<uint64_t>(n), static_cast<uint64_t>(of)));
}

}  // namespace

int64_t Scheduler::interval_of(const Sequence& sequence) const {
  const EngineSetup& setup = setup_of(sequence);
  return setup.policies.is_elastic() ? setup.policies.interval() : setup.options.kv.block_size;
}

int64_t Scheduler::last_length(const Sequence& sequence, const Request* request) const {
  const int64_t context = setup_of(sequence).longest;
  // A text that a host feeds, and a session's, may go on beyond this request, so it can need pages
  // up to the end of the context.
  if (request == nullptr || request->session != nullptr) return context;
  const int64_t made = sequence.length() - request->prompt_end;
  const int64_t left = std::max<int64_t>(0, request->options.max_tokens - made);
  return std::min(context, sequence.length() + std::max<int64_t>(0, left - 1));
}

int64_t Scheduler::pages_owed(const Sequence& sequence, const Request* request,
                              bool waiting_too) const {
  const int64_t at = sequence.computed() + cache_.reserved(sequence.tables());
  const int64_t interval = interval_of(sequence);
  // Whoever already waits at a decision length comes before those that have just come to one: for
  // them what it waits for is taken.
  const bool waits = waiting_too && request != nullptr && request->waits_for_pages;
  const int64_t next = at % interval == 0 && waits ? at + interval : up_to_multiple(at, interval);
  return cache_.pages_ahead(sequence.tables(), std::min(next, last_length(sequence, request)));
}

int64_t Scheduler::blocks_for(int64_t positions) const {
  const auto block = static_cast<uint64_t>(setup_.options.kv.block_size);
  return static_cast<int64_t>(ceil_div(static_cast<uint64_t>(positions), block)) + 1;
}

int64_t Scheduler::pages_unclaimed(const Sequence& asking, bool waiting_too, int64_t enough) const {
  // Where the limit was lowered (limit.cpp), pages that are owed may be taken beyond it.
  int64_t pages = cache_.available_pages() + (waiting_too ? 0 : cache_.pages_beyond_limit());
  // If there are enough even if each sequence were owed as much as can be, nothing is summed up.
  int64_t interval = 0;
  for (RulesId rules = 0; rules < setup_.n_rules(); ++rules) {
    interval = std::max<int64_t>(interval, setup_.of(rules).policies.interval());
  }
  const int64_t each = blocks_for(interval) * cache_.block_pages();
  const int64_t least = pages - static_cast<int64_t>(live_.size()) * each;
  if (least >= enough) return least;
  for (const Request* request : live_) {
    if (request->finished || !request->sequence.is_open()) continue;
    if (&request->sequence == &asking) continue;
    pages -= pages_owed(request->sequence, request, waiting_too);
  }
  return pages;
}

int32_t Scheduler::affordable_tokens(const Sequence& sequence, int32_t n, const Request* request,
                                     int64_t pages) const {
  const int64_t interval = interval_of(sequence);
  const int64_t at = sequence.computed();
  const int64_t room = room_in_context(sequence);
  // Where the context bounds what is resident and not the length, a sequence whose budget cannot
  // fall here goes on only until a layer holds as much as the context admits.
  const bool falls = may_fall(sequence, request) && at % interval == 0;
  const int64_t last = std::min(last_length(sequence, request),
                                falls || room == kUnlimited ? kUnlimited : at + room);
  const auto observed = [&](int64_t tokens) {
    return cache_.max_observed(sequence.tables(), static_cast<int32_t>(tokens));
  };
  const auto fits = [&](int64_t end) {
    const int64_t target = std::min(up_to_multiple(end, interval), last);
    if (target - at > room) return false;
    const int64_t needed = cache_.pages_ahead(sequence.tables(), target);
    return needed == 0 || needed <= pages;
  };
  n = static_cast<int32_t>(std::min<int64_t>(n, last - at));
  if (n <= 0) return 0;
  if (fits(at + n)) return observed(n);
  // Chunks end where decisions may fall due.
  const int64_t first = next_multiple(at, interval);
  const int64_t most = largest(0, (at + n - first) / interval + 1, [&](int64_t intervals) {
    return fits(first + (intervals - 1) * interval);
  });
  if (most == 0) return 0;
  return observed(std::min<int64_t>(n, first + (most - 1) * interval - at));
}

bool Scheduler::may_fall(const Sequence& sequence, const Request* request) const {
  return setup_of(sequence).policies.is_elastic() &&
         setup_.options.kv.pressure == KvPressure::kTrim &&
         (request == nullptr || !request->options.lossless);
}

int64_t Scheduler::pages_it_had(const Sequence& sequence) const {
  if (sequence.peak_pages() > 0) return sequence.peak_pages();
  const EngineSetup& setup = setup_of(sequence);
  const int64_t next = up_to_multiple(sequence.reached(), interval_of(sequence));
  return pages_needed(setup, std::min(next, setup.longest));
}

int64_t Scheduler::sure_length(const Sequence& sequence, const Request* request) const {
  if (!may_fall(sequence, request)) return kUnlimited;
  const EngineSetup& setup = setup_of(sequence);
  const int64_t interval = interval_of(sequence);
  return interval * largest(0, setup.longest / interval + 1, [&](int64_t n) {
           return pages_needed(setup, n * interval) <= setup_.pool.n_pages;
         });
}

void Scheduler::park_if_stuck(Sequence& sequence, const Request* request) {
  const int64_t interval = interval_of(sequence);
  const int64_t at = sequence.computed();
  if (at % interval == 0 || !may_fall(sequence, request)) return;
  const int64_t next = std::min(up_to_multiple(at, interval), last_length(sequence, request));
  const int64_t needed = cache_.pages_to_reach(sequence.tables(), next);
  if (needed <= setup_.pool.n_pages) return;
  sequence.give_way(0, id_of(request), needed);
  ++sessions_parked_;
}

int64_t Scheduler::room_in_context(const Sequence& sequence) const {
  const EngineSetup& setup = setup_of(sequence);
  if (setup.longest == setup.options.context) return kUnlimited;
  return setup.options.context - cache_.most_resident(sequence.tables());
}

bool Scheduler::stay_in_context(Sequence& sequence, Request* request) {
  const int64_t interval = interval_of(sequence);
  if (room_in_context(sequence) >= interval || sequence.computed() % interval != 0) return false;
  if (!may_fall(sequence, request) || sequence.comes_back()) return false;
  const int32_t budget = cache_.most_budget(sequence.rules());
  if (budget >= cache_.budget(sequence.tables())) return false;
  if (cache_.plan_fall(sequence.tables(), budget) == 0) return false;
  let_fall(sequence, request, request);
  return room_in_context(sequence) >= interval;
}

bool Scheduler::host_makes_room(const Sequence& sequence, const Request* request, int64_t needed) {
  if (!on_pressure_ || setup_.options.kv.pressure != KvPressure::kTrim) return false;
  const KvShortage shortage{request == nullptr ? 0 : request->id, needed,
                            std::max<int64_t>(0, pages_unclaimed(sequence, true))};
  return on_pressure_(shortage) == KvRelief::kWait;
}

int32_t Scheduler::relieve(Sequence& sequence, int32_t n, Request* request) {
  const int64_t interval = interval_of(sequence);
  const int64_t at = sequence.computed();
  const int64_t end = std::min(next_multiple(at, interval), last_length(sequence, request));
  const auto least = static_cast<int32_t>(std::clamp<int64_t>(end - at, 1, n));
  bool is_asked = false;
  for (;;) {
    n = std::min(n, static_cast<int32_t>(sequence.max_next()));  // its budget may have just fallen
    const int64_t most = cache_.pages_ahead(sequence.tables(), up_to_multiple(at + n, interval));
    const int32_t fit =
        affordable_tokens(sequence, n, request, pages_unclaimed(sequence, true, most));
    if (fit > 0) return fit;
    // Between two decision lengths it is sure of its pages, even if others wait for some.
    const int32_t owed = at % interval == 0
                             ? 0
                             : affordable_tokens(sequence, std::min(n, least), request,
                                                 pages_unclaimed(sequence, false));
    if (owed > 0) return owed;
    if (request != nullptr && request->wants_to_stop()) return kWaits;  // nobody gives for it
    if (stay_in_context(sequence, request)) continue;
    if (room_in_context(sequence) <= 0) return 0;
    if (park_idle(request)) continue;
    const int64_t needed = cache_.pages_ahead(sequence.tables(), end);
    if (!std::exchange(is_asked, true) && host_makes_room(sequence, request, needed)) {
      if (request != nullptr) return kWaits;
      continue;
    }
    const bool others_will = lower_budgets(sequence, request, needed);
    n = std::min(n, static_cast<int32_t>(sequence.max_next()));
    const int32_t now = affordable_tokens(sequence, n, request, pages_unclaimed(sequence, true));
    if (now > 0) return now;
    if (others_will && request != nullptr) return 0;
    if (park_last(request, request)) continue;
    if (request != nullptr && !is_alone(request)) return 0;
    // What is protected keeps its budget up: it ends where it can fall, should the host let go.
    if (sequence.is_kept_up() && at % interval == 0 && may_fall(sequence, request)) return 0;
    return std::min(n, least);
  }
}

}  // namespace paddock
