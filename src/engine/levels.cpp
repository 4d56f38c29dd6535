// How far budgets of elastic rules fall, and whose.
//
// All are set by one number, the level: a sequence's budget is the level times the weight of its
// priority, but not more than it was, and not less than its floor. The level is the highest at
// which everybody has what he needs until his next decision; those who give something up also get
// the slack of slack_of(), so that they need not give again at once.
#include <algorithm>
#include <cmath>

#include "core/checked.h"
#include "engine/scheduler.h"

namespace paddock {
namespace {

/// A level of priority doubles the weight, up to so many of them.
constexpr int32_t kMostLevels = 8;
/// How often a level is lowered because fewer pages come back than it promised: some are shared,
/// and blocks leave only as a whole.
constexpr int32_t kMostTries = 8;

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
      const int64_t ahead = (interval - sequence.computed() % interval) % interval;
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
    // Twice as much more each time, so that few tries are enough: some blocks are shared, and what
    // is asked for is a bound, not what comes back.
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

}  // namespace paddock
