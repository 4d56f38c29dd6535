// When pages run short: who gives its own up, and in which order.
#include <algorithm>
#include <new>

#include "engine/scheduler.h"

namespace paddock {

int32_t Scheduler::reserve(Sequence& sequence, int32_t n, Request* request) {
  if (cache_.is_elastic()) n = relieve(sequence, n, request);
  if (n <= 0) return n;
  const RequestId id = id_of(request);
  for (;;) {
    if (cache_.reserve(sequence.tables(), n, id)) return n;
    const int32_t fits = cache_.max_reservable(sequence.tables(), n);
    if (fits > 0 && cache_.reserve(sequence.tables(), fits, id)) return fits;
    if (!make_way(request)) return 0;
  }
}

void Scheduler::keep_to_budget(const Sequence* fed) {
  if (cache_.is_within_limit()) return;
  const auto is_over = [&] { return cache_.available_pages() < 0; };
  const Request* stays = fed != nullptr || live_.empty() ? nullptr : live_.front();
  while (is_over() && park_idle(nullptr)) {
  }
  const auto is_elastic = [&](const Sequence& sequence) {
    return setup_of(sequence).policies.is_elastic();
  };
  const bool may_fall_later = (fed != nullptr && is_elastic(*fed)) ||
                              std::any_of(live_.begin(), live_.end(), [&](const Request* request) {
                                return is_elastic(request->sequence);
                              });
  while (is_over() && !may_fall_later && park_last(stays, nullptr)) {
  }
  int64_t owed = 0;
  if (may_fall_later) {
    for (const Request* request : live_) {
      if (request->finished || !request->sequence.is_open()) continue;
      owed += pages_owed(request->sequence, request, false);
    }
    if (fed != nullptr && fed->is_open()) owed += pages_owed(*fed, nullptr, false);
  }
  cache_.keep_to_limit(owed);
}

bool Scheduler::make_way(const Request* request) {
  return park_idle(request) || park_last(request, request);
}

bool Scheduler::park_idle(const Request* asking) {
  Session* idle = nullptr;  // the one not used for longest
  for (const auto& [id, session] : sessions_) {
    if (session->busy || session->fed || pages_of(session->sequence) == 0) continue;
    if (idle == nullptr || session->last_used < idle->last_used) idle = session.get();
  }
  if (idle != nullptr) {
    idle->sequence.give_way(0, id_of(asking));
    ++sessions_parked_;
    return true;
  }
  if (waiting_in_sessions() == 0) return false;
  const auto& all = requests();
  for (size_t i = all.size(); i-- > 0;) {
    Request& last = *all[i];
    if (last.running || last.finished || pages_of(last.sequence) == 0) continue;
    // That of its session, which has pages while the request waits.
    last.sequence.give_way(0, id_of(asking));
    ++sessions_parked_;
    return true;
  }
  return false;
}

bool Scheduler::park_last(const Request* request, const Request* asking) {
  for (size_t i = live_.size(); i-- > 0;) {
    Request& last = *live_[i];
    if (&last == request) break;
    if (last.finished || pages_of(last.sequence) == 0) continue;
    park(last, asking);
    return true;
  }
  // Requests of a higher rank give nothing up for this one. Pins do, where no other request has
  // pages that it could wait for.
  return is_alone(request) && release_pin();
}

bool Scheduler::is_alone(const Request* request) const {
  return std::none_of(live_.begin(), live_.end(), [&](const Request* other) {
    return other != request && !other->finished && pages_of(other->sequence) > 0;
  });
}

bool Scheduler::release_pin() {
  // `tables` is what sequences list, without pins at first: a pin is worth its going only if pages
  // come back by it.
  std::vector<SequenceId> tables, pins;
  for (const auto& [id, session] : sessions_) {
    if (session->sequence.is_open()) tables.push_back(session->sequence.tables());
  }
  for (const Request* request : live_) {
    if (request->sequence.is_open()) tables.push_back(request->sequence.tables());
  }
  pins_.for_each([&](SequenceId pin, std::span<const TokenId>) { pins.push_back(pin); });
  const size_t n = tables.size();
  const int64_t least = cache_.pages_listed(tables);
  tables.insert(tables.end(), pins.begin(), pins.end());
  const int64_t all = cache_.pages_listed(tables);
  if (all == least) return false;  // what they hold somebody else lists, too
  pins_.give_way([&](SequenceId pin) {
    tables.resize(n);
    for (const SequenceId other : pins) {
      if (other != pin) tables.push_back(other);
    }
    return cache_.pages_listed(tables) < all;
  });
  return true;
}

void Scheduler::park(Request& request, const Request* asking) {
  suspend_awaiting(request);
  const KvPreemption told = request.sequence.give_way(request.id, id_of(asking));
  try {
    request.result.preempted.push_back(told);
  } catch (const std::bad_alloc&) {  // it goes on without the list
  }
  request.miss_asked = request.result.miss.reason != MissReason::kNone;
  ++request.result.preemptions;
  ++preemptions_;
  let_out(request);
}

int64_t Scheduler::pages_of(const Sequence& sequence) const {
  return sequence.is_open() ? cache_.pages_listed(sequence.tables()) : 0;
}

}  // namespace paddock
