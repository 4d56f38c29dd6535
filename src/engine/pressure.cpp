// Elastic rules under pressure: who gives pages back, and how many.
//
// Elastic rules decide at lengths that are multiples of an interval: decision lengths. A sequence
// asks for pages when it stands at one, for all up to the next. From then on it is sure of them:
// what a sequence has yet to take on its way counts as taken when others ask. So it keeps
// everything as long as pages can be had at its decision lengths.
//
// Where they cannot, budgets fall. All are set by one number, the level: a sequence's budget is the
// level times the weight of its priority, but not more than it was, and not less than its floor.
// The level is the highest at which everybody has what he needs until his next decision; those who
// give something up also get the slack of slack_of(), so that they need not give again at once.
//
// A budget can only fall at a decision length. If sequences above the level are not there yet,
// whoever asks waits for them, a step or more.
//
// A sequence under rules without an elastic layer gives nothing and asks by the block: it takes
// part as one whose interval is a block, so that nothing is owed to it between two.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/checked.h"
#include "core/search.h"
#include "engine/scheduler.h"

namespace paddock {
namespace {

/// A level of priority doubles the weight, up to so many of them.
constexpr int32_t kMostLevels = 8;
/// How often a level is lowered because fewer pages come back than it promised: some are shared,
/// and blocks leave only as a whole.
constexpr int32_t kMostTries = 8;

int64_t next_multiple(int64_t n, int64_t of) { return (n / of + 1) * of; }
int64_t up_to_multiple(int64_t n, int64_t of) {
  return static_cast<int64_t>(round_up(static_cast<uint64_t>(n), static_cast<uint64_t>(of)));
}

}  // namespace

/// One that shares the pool with others.
struct Scheduler::Member {
  Sequence* sequence;
  Request* request;  // null: the host's own
  double weight;
  CacheManager::Holdings held{};
  int64_t demand = 0;  // positions that it needs until its next decision, if it gives nothing
  int64_t budget = kUnlimited;  // in force
  int64_t pages_before = 0;     // that it had before it was parked, if it is read again
  bool gives = true;            // it may be asked for some
};

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
  // Where the context bounds what is resident, a sequence whose budget cannot fall here goes no
  // further than its end.
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

std::vector<Scheduler::Member> Scheduler::members(Sequence& asking, Request* request) const {
  std::vector<Member> all;
  const auto add = [&](Sequence& sequence, Request* its) {
    const int64_t interval = interval_of(sequence);
    const int32_t priority = its == nullptr ? 0 : its->options.priority;
    Member member{.sequence = &sequence,
                  .request = its,
                  .weight = std::exp2(std::clamp(priority, -kMostLevels, kMostLevels))};
    int64_t known = sequence.length();
    if (sequence.is_open()) {
      member.held = cache_.holdings(sequence.tables());
      member.budget = cache_.budget(sequence.tables());
      const int64_t ahead = up_to_multiple(sequence.computed(), interval) - sequence.computed();
      known = member.held.positions + std::max(ahead, sequence.length() - sequence.computed());
    }
    member.demand = std::min(known, member.budget) + interval;
    // One that is computed again after it was parked comes back with all that it had, and gives
    // nothing before: unless the pool has become too small for that.
    const bool comes_back = sequence.comes_back();
    const bool is_too_much = comes_back && pages_it_had(sequence) > setup_.pool.n_pages;
    member.gives = may_fall(sequence, its) && (!comes_back || is_too_much);
    if (comes_back) member.pages_before = sequence.peak_pages();
    if (is_too_much) member.budget = std::min<int64_t>(member.budget, sequence.last_budget());
    all.push_back(member);
  };
  bool is_in = false;
  for (Request* other : live_) {
    const bool is_asking = &other->sequence == &asking;
    if (!is_asking && other->finished) continue;
    is_in |= is_asking;
    add(other->sequence, other);
  }
  if (!is_in) add(asking, request);
  return all;
}

int64_t Scheduler::budget_at(const Member& member, double level) const {
  const double asked = std::min(level * member.weight, static_cast<double>(member.budget));
  return std::max<int64_t>(static_cast<int64_t>(asked), member.sequence->least_budget());
}

std::optional<double> Scheduler::find_level(const std::vector<Member>& all, int64_t pages) const {
  const int64_t block = setup_.options.kv.block_size;
  // A page that several list is needed once: each counts its part of it.
  const auto own_pages = [&](const Member& member, int64_t positions) {
    const int64_t per_block = cache_.elastic_pages(member.sequence->rules());
    if (member.held.pages == 0) return blocks_for(positions) * per_block;
    const double part = member.held.fair_pages / static_cast<double>(member.held.pages);
    const int64_t held = std::min(positions, member.held.positions);
    const auto blocks = static_cast<double>(ceil_div(held, block));
    return static_cast<int64_t>(std::ceil(part * blocks * static_cast<double>(per_block))) +
           blocks_for(positions - held) * per_block;
  };
  const auto fits = [&](double level) {
    int64_t needed = 0;
    for (const Member& member : all) {
      int64_t positions = member.demand;
      if (member.gives) {
        const int64_t budget = budget_at(member, level);
        const int64_t interval = interval_of(*member.sequence);
        positions = std::min(positions, budget + slack_of(interval, budget));
      }
      const int64_t own = own_pages(member, positions);
      const auto shared =
          static_cast<int64_t>(static_cast<double>(member.held.pages) - member.held.fair_pages);
      needed += member.gives ? own : std::max(own, member.pages_before - shared);
    }
    return needed <= pages;
  };
  double low = 0;
  if (!fits(low)) return std::nullopt;
  double high = 0;
  for (const Member& member : all) {
    if (!member.gives) continue;
    high = std::max(high, static_cast<double>(setup_of(*member.sequence).options.context));
  }
  high *= std::exp2(kMostLevels);
  // Near enough that no budget, which is a level times a weight of at most 2^kMostLevels, rounded
  // down to a whole position, is more than one position off.
  while (high - low > 0.5 / (1 << kMostLevels)) {
    const double middle = (low + high) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

int64_t Scheduler::pages_shared_out(const std::vector<Member>& all) const {
  double pages = static_cast<double>(cache_.available_pages());
  for (const Member& member : all) {
    const int64_t blocks = blocks_for(interval_of(*member.sequence));
    pages += member.held.fair_pages -
             static_cast<double>(blocks * cache_.growing_pages(member.sequence->rules()));
  }
  return static_cast<int64_t>(pages);
}

bool Scheduler::has_share(Request& newcomer) const {
  // Without elastic rules it gives nothing up, so that no level can make room for it: it is let in
  // when the pages that it needs can be had.
  if (!setup_of(newcomer.sequence).policies.is_elastic()) return false;
  const std::vector<Member> all = members(newcomer.sequence, &newcomer);
  return find_level(all, pages_shared_out(all)).has_value();
}

bool Scheduler::lower_budgets(Sequence& asking, Request* request, int64_t needed) {
  const int64_t before = pages_unclaimed(asking, true);
  std::vector<Member> all = members(asking, request);
  std::vector<Member*> falling;
  std::vector<CacheManager::Fall> falls;
  std::vector<SequenceId> later;
  std::vector<uint8_t> brings;
  bool others_will = false;
  int64_t missing = 0;  // pages by which levels so far have turned out to be too high
  for (int32_t i = 0; i < kMostTries && before < needed; ++i) {
    auto level = find_level(all, pages_shared_out(all) - missing);
    if (!level && i == 0) return false;
    if (!level) level = 0;  // the floors
    falling.clear();
    falls.clear();
    later.clear();
    for (Member& member : all) {
      const int64_t budget = budget_at(member, *level);
      if (!member.gives || member.held.positions <= budget) continue;
      const SequenceId id = member.sequence->tables();
      if (cache_.length(id) % interval_of(*member.sequence) == 0 && cache_.reserved(id) == 0) {
        falling.push_back(&member);
        falls.push_back({id, static_cast<int32_t>(budget)});
      } else if (member.sequence != &asking) {
        later.push_back(id);
      }
    }
    const int64_t back = cache_.plan_falls(falls, later, brings);
    others_will = !later.empty();
    if (others_will || before + back >= needed) break;
    if (*level == 0) return others_will;
    missing += (needed - before - back) << i;
  }
  for (size_t i = 0; i < falls.size(); ++i) {
    if (brings[i] == 0) continue;  // others list all that it would drop, and go on to
    if (falls.size() > 1) cache_.plan_fall(falls[i].id, falls[i].budget);
    let_fall(*falling[i]->sequence, falling[i]->request, request);
  }
  return others_will;
}

void Scheduler::let_fall(Sequence& sequence, Request* request, const Request* asking) {
  std::vector<KvBudgetChange> none;
  std::vector<KvBudgetChange>& told = request == nullptr ? none : request->result.budget_changes;
  told.reserve(told.size() + 1);  // first: once the budget has fallen this must not fail
  told.push_back(sequence.fall(asking == nullptr ? 0 : asking->id));
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
